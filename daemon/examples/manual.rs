//! Writes the manual pages and the shell completions of the command line into a folder, for packages:
//! `cargo run -p ternwatchd --example manual -- FOLDER`.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use ternwatch_daemon::cli::Arguments;
use ternwatch_daemon::exit::Reason;

/// Programs for administrators and daemons.
const SECTION: &str = "8";

fn main() -> io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1) else {
        return Err(io::Error::other("say into which folder"));
    };
    let folder = Path::new(&folder);
    fs::create_dir_all(folder)?;
    let mut command = Arguments::command().disable_help_subcommand(true);
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "ternwatchd", folder)?;
    }
    command.build();
    pages(&command, folder, true)
}

/// A page for the command and one for each of its subcommands.
fn pages(command: &Command, folder: &Path, is_whole_program: bool) -> io::Result<()> {
    let page = Man::new(command.clone())
        .section(SECTION)
        .manual("Ternwatch");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command
        .get_subcommands()
        .any(|subcommand| !subcommand.is_hide_set())
    {
        page.render_subcommands_section(&mut text)?;
    }
    if is_whole_program {
        ending(&mut text)?;
    }
    fs::write(folder.join(page.get_filename()), text)?;
    for subcommand in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        pages(subcommand, folder, false)?;
    }
    Ok(())
}

/// What the command line does not know: files, exit codes, and where to read on.
fn ending(text: &mut impl Write) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", ["FILES"]);
    for (file, what) in [
        (
            "/etc/ternwatch/ternwatch.toml",
            "The configuration; every setting with its default.",
        ),
        (
            "/usr/lib/ternwatch",
            "The model that comes along, and the public key that signed it.",
        ),
        (
            "/var/lib/ternwatch",
            "Models that came later, and the record of them.",
        ),
        (
            "/usr/share/doc/ternwatch",
            "What every setting means, what is published over MQTT, how models are replaced.",
        ),
    ] {
        roff.control("TP", []);
        roff.text([bold(file)]).text([roman(what)]);
    }
    roff.control("SH", ["EXIT STATUS"]);
    roff.control("TP", []);
    roff.text([bold("0")])
        .text([roman("It did what it should.")]);
    for &(reason, explanation) in Reason::EXPLAINED {
        roff.control("TP", []);
        roff.text([bold((reason as u8).to_string())])
            .text([roman(explanation)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("systemctl(1), journalctl(1), mosquitto(8)")]);
    roff.to_writer(text)
}
