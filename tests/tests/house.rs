//! The house stays in order: crate edges, file lengths, and documents that speak of what is there.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which crates of ours a crate may use. Everything else is forbidden.
const EDGES: &[(&str, &[&str])] = &[
    ("ternwatch-kernels", &[]),
    // For the trits and their codes only: docs/adr/0003-bundle-uses-the-trit-codes.md.
    ("ternwatch-bundle", &["ternwatch-kernels"]),
    (
        "ternwatch-detector",
        &["ternwatch-kernels", "ternwatch-bundle"],
    ),
    // For hexadecimal and the longest file.
    ("ternwatch-ota", &["ternwatch-bundle"]),
    (
        "ternwatchd",
        &["ternwatch-detector", "ternwatch-bundle", "ternwatch-ota"],
    ),
    (
        "quant-tool",
        &[
            "ternwatch-detector",
            "ternwatch-bundle",
            "ternwatch-kernels",
            "ternwatch-ota",
        ],
    ),
    // It sees what any subscriber sees, and sends models as anybody may.
    ("ternwatch-demo", &["ternwatch-bundle", "ternwatch-ota"]),
    // It shows a film to a camera of the emulated machine.
    ("ternwatch-feeder", &[]),
    (
        "system-tests",
        &[
            "ternwatch-kernels",
            "ternwatch-bundle",
            "ternwatch-detector",
            "ternwatch-ota",
            "ternwatchd",
            "quant-tool",
            "ternwatch-demo",
        ],
    ),
];

/// A source file's lines without its unit tests.
const FILE_LINES_MAX: usize = 600;
/// ARCHITECTURE.md is one page.
const PAGE_LINES_MAX: usize = 100;
/// The models that ship, and their size at most.
const BUNDLE_BYTES_MAX: &[(&str, u64)] = &[("person.tern", 300_000), ("person-lite.tern", 100_000)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
        .to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below the root that belong to the project: what git knows or would add.
fn project_files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut files: Vec<PathBuf> = String::from_utf8(output.stdout)
        .expect("paths are UTF-8")
        .split_terminator('\0')
        .map(PathBuf::from)
        // A file that was removed and not yet committed is no concern.
        .filter(|path| root().join(path).is_file())
        .collect();
    files.sort();
    assert!(
        files.iter().any(|path| path == Path::new("Cargo.toml")),
        "the list of files has no Cargo.toml"
    );
    files
}

fn workspace_packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--locked",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

#[test]
fn crates_use_only_the_crates_that_the_design_allows() {
    let packages = workspace_packages();
    let ours: BTreeSet<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().expect("a package has a name");
        let Some((_, allowed)) = EDGES.iter().find(|(from, _)| *from == name) else {
            wrong.push(format!("{name} has no line in the table of edges"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"]
                .as_str()
                .expect("a dependency has a name");
            // A crate's tests may switch on features of the crate itself.
            if ours.contains(to) && to != name && !allowed.contains(&to) {
                wrong.push(format!("{name} must not use {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (from, _) in EDGES {
        assert!(
            ours.contains(from),
            "the table of edges has {from}, the workspace has not"
        );
    }
}

#[test]
fn every_crate_obeys_the_lints_of_the_workspace() {
    for path in project_files() {
        if path.ends_with("Cargo.toml")
            && path != Path::new("Cargo.toml")
            && !path.starts_with("fuzz")
        {
            assert!(
                read(&path).contains("[lints]\nworkspace = true"),
                "{} has lints of its own",
                path.display()
            );
        }
    }
}

/// Lines up to the unit tests, which stand last in a file.
fn lines_without_tests(source: &str) -> usize {
    let lines: Vec<&str> = source.lines().collect();
    lines
        .windows(2)
        .position(|pair| {
            pair[0] == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{')
        })
        .unwrap_or(lines.len())
}

#[test]
fn source_files_are_short_enough_to_be_read_in_one_go() {
    let mut long = Vec::new();
    for path in project_files() {
        let is_test = path.components().any(|part| part.as_os_str() == "tests")
            && !path.starts_with("tests/src");
        if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
            let lines = lines_without_tests(&read(&path));
            if lines > FILE_LINES_MAX {
                long.push(format!(
                    "{}: {lines} lines without its tests",
                    path.display()
                ));
            }
        }
    }
    assert!(
        long.is_empty(),
        "at most {FILE_LINES_MAX} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn unit_tests_do_not_count_as_length() {
    assert_eq!(
        lines_without_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"),
        2
    );
    assert_eq!(lines_without_tests("a\n#[cfg(test)]\nuse b;\nc\n"), 4);
}

/// The words between single backticks on each line.
fn code_words(text: &str) -> Vec<&str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn the_architecture_fits_one_page_and_names_what_exists() {
    let text = read("ARCHITECTURE.md");
    let lines = text.lines().count();
    assert!(
        lines <= PAGE_LINES_MAX,
        "ARCHITECTURE.md has {lines} lines, a page has {PAGE_LINES_MAX}"
    );
    let mut missing = Vec::new();
    let mut paths = 0;
    for word in code_words(&text) {
        let is_path = word.contains('/') && !word.contains(' ') && !word.starts_with(['<', '/']);
        let is_file = word.ends_with(".rs") || word.ends_with(".md") || word.ends_with(".toml");
        if is_path || is_file {
            paths += 1;
            if !root().join(word).exists() {
                missing.push(word);
            }
        }
    }
    assert!(
        paths > 20,
        "the code map names only {paths} paths: is it still written as it was?"
    );
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md names what is not there: {missing:?}"
    );
}

/// Where a link of a Markdown text leads to, links to other sites left out.
fn local_links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(|target| target.split('#').next().unwrap_or(target))
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for path in project_files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        let text = read(&path);
        for target in local_links(&text) {
            let base = root()
                .join(&path)
                .parent()
                .expect("a file lies in a folder")
                .to_owned();
            if !base.join(target).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_schema_is_in_a_document_and_in_a_test() {
    let files = project_files();
    let texts = |wanted: fn(&Path) -> bool| -> String {
        let wanted = files.iter().filter(|path| wanted(path.as_path()));
        wanted.map(read).collect()
    };
    let documents = texts(|path| path.extension().is_some_and(|e| e == "md"));
    let tests = texts(|path| path.extension().is_some_and(|e| e == "rs"));
    let schemas = files.iter().filter(|path| path.starts_with("docs/schema"));
    let names: Vec<&str> = schemas
        .filter_map(|path| path.file_name()?.to_str())
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(
            documents.contains(&format!("schema/{name})")),
            "{name} is in no document"
        );
        assert!(
            tests.contains(&format!("docs/schema/{name}\"")),
            "{name} is in no test"
        );
    }
}

#[test]
fn the_models_that_ship_are_small() {
    let is_bundle =
        |path: &Path| path.starts_with("models") && path.extension() == Some("tern".as_ref());
    let files = project_files();
    let bundles: Vec<&PathBuf> = files.iter().filter(|path| is_bundle(path)).collect();
    assert_eq!(bundles.len(), BUNDLE_BYTES_MAX.len(), "{bundles:?}");
    for (name, bytes_max) in BUNDLE_BYTES_MAX {
        let path = root().join("models").join(name);
        let bytes = fs::metadata(path).map(|file| file.len());
        let bytes = bytes.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            bytes <= *bytes_max,
            "{name} has {bytes} bytes, at most {bytes_max}"
        );
    }
}

/// The tasks of a Makefile.
fn tasks_of(makefile: &str) -> BTreeSet<&str> {
    makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '.', '#', ' ']) && !line.contains(":="))
        .filter_map(|line| line.split_once(':').map(|(task, _)| task))
        .collect()
}

/// The tasks that a document calls: `make TASK` where a line, a word in backticks or a stage of .ci/run begins.
fn called_tasks(text: &str) -> Vec<&str> {
    let mut tasks = Vec::new();
    for line in text.lines() {
        let command = line
            .trim_start()
            .strip_prefix("stage ")
            .and_then(|stage| stage.split_once(' '))
            .map_or(line, |(_name, command)| command);
        for command in code_words(line).into_iter().chain([command]) {
            let mut words = command.split_whitespace();
            if words.next() == Some("make") {
                tasks.extend(words.next());
            }
        }
    }
    tasks
}

#[test]
fn called_tasks_are_found_in_code_and_not_in_prose() {
    let text = "make one\nTo make two of it, `make three ARG=1` and\nstage name make four X=y\n  make five";
    assert_eq!(called_tasks(text), ["one", "three", "four", "five"]);
}

#[test]
fn the_make_tasks_in_the_documents_exist() {
    let makefile = read("Makefile");
    let tasks = tasks_of(&makefile);
    let mut named = 0;
    let documents = project_files().into_iter().filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "md" || extension == "toml")
            || path == Path::new(".ci/run")
    });
    for document in documents {
        for task in called_tasks(&read(&document)) {
            named += 1;
            assert!(
                tasks.contains(task),
                "{} speaks of `make {task}`, the Makefile has {tasks:?}",
                document.display()
            );
        }
    }
    assert!(named >= 5, "the documents name only {named} tasks");
}

#[test]
fn no_file_names_a_folder_of_the_machine_that_it_was_written_on() {
    // Composed, so that this file does not contain what it looks for.
    let words = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat()];
    let mut found = Vec::new();
    for path in project_files() {
        // Pictures and bundles are no text.
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (index, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The page on updates says which test holds each promise.
#[test]
fn the_promises_name_tests_that_are_there() {
    let text = read("docs/ota.md");
    let (_, promises) = text.split_once("## Promises").expect("a chapter");
    let sources: Vec<(PathBuf, String)> = project_files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| (path.clone(), read(&path)))
        .collect();
    let is_test = |source: &str, name: &str| {
        let mut lines = source.lines().peekable();
        let mut is_marked = false;
        lines.any(|line| {
            let line = line.trim_start();
            let is_it = is_marked && line.starts_with(&format!("fn {name}("));
            // Other attributes may stand between.
            is_marked = line == "#[test]" || is_marked && line.starts_with("#[");
            is_it
        })
    };
    let mut named = 0;
    let mut missing = Vec::new();
    for row in promises.lines().filter(|line| line.starts_with("| ")) {
        // Reasons and settings are in the first column.
        let held_by = row.split(" | ").skip(1).collect::<Vec<_>>().join(" | ");
        for word in code_words(&held_by) {
            let is_name = word.split('_').count() > 2
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            let is_path = word.ends_with(".rs");
            let is_there = if is_path {
                root().join(word).is_file()
            } else {
                !is_name || sources.iter().any(|(_, source)| is_test(source, word))
            };
            named += usize::from(is_name || is_path);
            if !is_there {
                missing.push(word.to_owned());
            }
        }
    }
    assert!(named > 40, "the promises name only {named} tests and files");
    assert!(missing.is_empty(), "no such test or file: {missing:?}");
}
