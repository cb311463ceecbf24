//! `plimsoll init` over project folders as they are found.

use std::fs;
use std::path::Path;

use plimsoll::cli::{Exit, Init};
use plimsoll::config::Config;
use plimsoll::verbs::init::{InitError, run};

/// A project `reports` with these files.
fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join("reports").join(name);
        fs::create_dir_all(path.parent().expect("below the project")).expect("made");
        fs::write(path, text).expect("written");
    }
    folder
}

fn args(folder: &Path) -> Init {
    Init { folder: folder.join("reports"), force: false, stdout: false }
}

/// The configuration for a project, loaded before it is shown.
fn written(files: &[(&str, &str)]) -> String {
    let folder = project(files);
    let mut out = Vec::new();
    let exit = run(&args(folder.path()), &mut out).expect("it can be written");
    assert_eq!(exit, Exit::Done);
    let file = folder.path().join("reports/plimsoll.toml");
    let text = fs::read_to_string(&file).expect("it is there");
    let (_, warnings) = Config::read(&file).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    text
}

/// Only the lines that count.
fn effective(text: &str) -> String {
    let counts = |line: &&str| !line.starts_with('#') && !line.is_empty();
    text.lines()
        .filter(counts)
        .map(|line| line.split(" #").next().unwrap_or(line).trim_end())
        .collect::<Vec<_>>()
        .join("\n")
}

const PACKAGE: (&str, &str) = (
    "package.json",
    r#"{"name": "@acme/reports-api", "scripts": {"start": "node server.js"}, "engines": {"node": ">=20"}}"#,
);
const SERVER: (&str, &str) = ("server.js", "if (request.url === '/health') {}\n");

#[test]
fn a_node_project_with_a_database() {
    let files = [PACKAGE, SERVER, ("data/reports.db", ""), (".env", "A=1\n")];
    insta::assert_snapshot!(written(&files));
}

#[test]
fn a_procfile_with_a_web_process_and_a_worker() {
    let procfile = "# comment\nweb: gunicorn app:app --bind 127.0.0.1:$PORT\nworker: python3 work.py > log\nrelease: ./migrate\n";
    insta::assert_snapshot!(written(&[("Procfile", procfile)]));
}

#[test]
fn every_kind_of_project_is_recognized() {
    let dockerfile = "FROM node\nEXPOSE 4000\nHEALTHCHECK CMD curl -f http://localhost:4000/healthz || exit 1\nCMD [\"node\", \"x.js\"]\n";
    let cases: [(&str, &[(&str, &str)]); 13] = [
        ("a script alone", &[("server.js", "")]),
        (
            "npm with shell syntax",
            &[("package.json", r#"{"scripts": {"start": "NODE_ENV=production node a.js"}}"#)],
        ),
        (
            "pnpm and a tool",
            &[("package.json", r#"{"scripts": {"start": "next start"}}"#), ("pnpm-lock.yaml", "")],
        ),
        ("main without a start script", &[("package.json", r#"{"main": "lib/x.js"}"#), ("lib/x.js", "")]),
        ("no start script, a usual name", &[("package.json", "{}"), ("index.js", "")]),
        ("deno", &[("deno.json", r#"{"tasks": {"start": "deno run main.ts"}}"#)]),
        (
            "uvicorn",
            &[("pyproject.toml", "[project]\nname = \"x\"\ndependencies = [\"uvicorn\"]\n"), ("main.py", "")],
        ),
        ("python in its own environment", &[("app.py", "@route(\"/health\")"), (".venv/bin/python3", "")]),
        ("django", &[("manage.py", "")]),
        ("cargo", &[("Cargo.toml", "[package]\nname = \"re_ports\"\n"), ("src/main.rs", "")]),
        ("go", &[("go.mod", "module example.org/acme/reports\n\ngo 1.22\n")]),
        ("a jar", &[("pom.xml", ""), ("target/app-1.0-sources.jar", ""), ("target/app-1.0.jar", "")]),
        ("a Dockerfile alone", &[("Dockerfile", dockerfile)]),
    ];
    let shown: Vec<String> =
        cases.iter().map(|(name, files)| format!("== {name}\n{}", effective(&written(files)))).collect();
    insta::assert_snapshot!(shown.join("\n\n"));
}

#[test]
fn it_tells_what_it_found_and_what_is_still_missing() {
    let folder = project(&[("Cargo.toml", "[package]\nname = \"reports\"\n"), ("src/main.rs", "")]);
    let mut out = Vec::new();
    run(&args(folder.path()), &mut out).expect("it can be written");
    let told = String::from_utf8(out).expect("text").replace(&folder.path().display().to_string(), "DIR");
    insta::assert_snapshot!(told);
}

#[test]
fn what_it_writes_for_a_program_that_is_there_passes_the_whole_check() {
    let folder = project(&[("Procfile", "web: sh serve.sh $PORT\n")]);
    run(&args(folder.path()), &mut Vec::new()).expect("it can be written");
    let loaded = Config::load(&folder.path().join("reports/plimsoll.toml"));
    let (config, _) = loaded.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.services[0].command, ["sh", "serve.sh", "{port}"]);
}

#[test]
fn a_file_that_is_there_is_kept_unless_forced() {
    let folder = project(&[PACKAGE, SERVER, ("plimsoll.toml", "mine\n")]);
    let file = folder.path().join("reports/plimsoll.toml");
    let error = run(&args(folder.path()), &mut Vec::new()).expect_err("it is there");
    assert!(matches!(&error, InitError::Exists(path) if *path == file));
    assert_eq!(error.exit(), Exit::Usage);
    assert_eq!(fs::read_to_string(&file).expect("kept"), "mine\n");

    let forced = Init { force: true, ..args(folder.path()) };
    assert_eq!(run(&forced, &mut Vec::new()).expect("forced"), Exit::Done);
    assert!(fs::read_to_string(&file).expect("new").contains("[service.reports-api]"));
    assert_eq!(
        fs::read_dir(folder.path().join("reports")).expect("listed").count(),
        3,
        "nothing is left behind"
    );
}

#[test]
fn printing_writes_nothing() {
    let folder = project(&[PACKAGE, SERVER]);
    let mut out = Vec::new();
    run(&Init { stdout: true, ..args(folder.path()) }, &mut out).expect("printed");
    assert!(String::from_utf8(out).expect("text").contains("[service.reports-api]"));
    assert!(!folder.path().join("reports/plimsoll.toml").exists());
}

#[test]
fn a_folder_with_nothing_to_guard_gets_an_answer_and_no_file() {
    let folder =
        project(&[("README.md", "hello"), ("notes.db", "not a database"), ("package.json", "{broken")]);
    let mut out = Vec::new();
    assert_eq!(run(&args(folder.path()), &mut out).expect("told"), Exit::No);
    assert!(String::from_utf8(out).expect("text").contains("[service.web]"));
    assert!(!folder.path().join("reports/plimsoll.toml").exists());
    let nowhere = Init { folder: folder.path().join("missing"), force: false, stdout: false };
    assert!(matches!(run(&nowhere, &mut Vec::new()), Err(InitError::NotAFolder(_))));
}
