//! Sending a keyring: which keys devices take models of from then on.

use std::time::Duration;

use anyhow::{Context, Result};
use ternwatch_bundle::keyring::{Keyring, Roots};
use ternwatch_ota::sender::Sender;
use ternwatch_ota::state::State;

use super::fleet::{self, Goods, keyring_of};
use crate::cli::Trust;
use crate::files;
use crate::tell::out;

/// Sends a keyring, or says what would happen. What these roots do not vouch for is not sent: no device would take it.
pub fn trust(args: &Trust) -> Result<()> {
    let to = &args.to;
    fleet::check(to)?;
    let roots = Roots::from_text(&files::read_text(&args.roots)?)
        .with_context(|| args.roots.display().to_string())?;
    let file = files::read(&args.keyring)?;
    let keyring =
        Keyring::verify(&file, &roots).with_context(|| args.keyring.display().to_string())?;
    let body = keyring.body();
    let version = body.version;
    out!(
        "keyring {version}, {} keys, {} revoked",
        body.models.len(),
        body.revoked.len()
    );
    let sender = Sender::of_keyring(&to.prefix, &to.device, (version, file), args.retain);
    let limit = Duration::from_secs(args.timeout_s);
    fleet::send(sender, to, Goods::Keyring, limit, |state| {
        forecast(state, version)
    })
}

/// What a keyring of this version would come to, as far as can be told from here.
fn forecast(state: &State, version: u64) -> String {
    let present = keyring_of(state);
    match state.keyring >= Some(version) {
        true => format!("{present}: nothing would change"),
        false => format!("would take it if it is of its roots; {present}"),
    }
}
