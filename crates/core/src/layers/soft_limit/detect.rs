//! Which runtime a command starts, from its words alone.

use alloc::string::String;

use super::Runtime;
use super::words::{base, words};

/// Programs that start another one: the first known program among their words counts.
const WRAPPERS: [&str; 24] = [
    "catatonit",
    "chroot",
    "chrt",
    "doas",
    "dotenv",
    "dumb-init",
    "env",
    "exec",
    "gosu",
    "ionice",
    "nice",
    "nohup",
    "numactl",
    "runuser",
    "s6-setuidgid",
    "setpriv",
    "setsid",
    "stdbuf",
    "su-exec",
    "sudo",
    "taskset",
    "time",
    "timeout",
    "tini",
];

const PROGRAMS: [(Runtime, &[&str]); 8] = [
    (
        Runtime::Node,
        &[
            "node",
            "nodejs",
            "npm",
            "npx",
            "yarn",
            "yarnpkg",
            "pnpm",
            "pnpx",
            "corepack",
            "tsx",
            "ts-node",
            "nodemon",
            "next",
            "nuxt",
            "nest",
            "pm2-runtime",
        ],
    ),
    (
        Runtime::Jvm,
        &[
            "java",
            "kotlin",
            "scala",
            "sbt",
            "gradle",
            "gradlew",
            "mvn",
            "mvnw",
            "clojure",
            "lein",
            "jruby",
            "catalina.sh",
        ],
    ),
    (Runtime::DotNet, &["dotnet"]),
    (Runtime::Deno, &["deno"]),
    (Runtime::Bun, &["bun", "bunx"]),
    (
        Runtime::Ruby,
        &[
            "ruby",
            "bundle",
            "bundler",
            "puma",
            "pumactl",
            "rails",
            "rackup",
            "rake",
            "unicorn",
            "thin",
            "sidekiq",
            "passenger",
            "irb",
        ],
    ),
    (
        Runtime::Python,
        &[
            "python",
            "pypy",
            "gunicorn",
            "uvicorn",
            "hypercorn",
            "daphne",
            "celery",
            "flask",
            "uwsgi",
            "waitress-serve",
            "django-admin",
            "poetry",
            "pipenv",
            "uv",
            "streamlit",
            "jupyter",
            "granian",
        ],
    ),
    (Runtime::Go, &["go"]),
];

/// Endings of a program that its runtime is started for by the kernel or by the first line.
const ENDINGS: [(Runtime, &[&str]); 5] = [
    (Runtime::Node, &[".js", ".mjs", ".cjs"]),
    (Runtime::Jvm, &[".jar"]),
    (Runtime::DotNet, &[".dll"]),
    (Runtime::Ruby, &[".rb", ".ru"]),
    (Runtime::Python, &[".py", ".pyz"]),
];

/// What a look at the program's file can add to its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints<'a> {
    /// The first line of a script, `#!/usr/bin/env node`, with or without its mark.
    pub first_line: Option<&'a str>,
    /// The file carries Go's build note.
    pub is_go: bool,
}

/// The runtime that `argv` starts; `None` when neither the words nor the hints tell.
pub fn detect(argv: &[&str], hints: Hints<'_>) -> Option<Runtime> {
    let words = words(argv);
    by_words(&words).or_else(|| by_hints(hints))
}

fn by_words(words: &[String]) -> Option<Runtime> {
    let (program, rest) = after_assignments(words).split_first()?;
    if WRAPPERS.contains(&base(program)) {
        return rest.iter().filter(|word| !is_option(word)).find_map(|word| by_name(word));
    }
    by_name(program)
}

/// `A=b node x` in a shell text: the program comes after the assignments.
fn after_assignments(words: &[String]) -> &[String] {
    let program = words.iter().position(|word| !is_assignment(word));
    &words[program.unwrap_or(words.len())..]
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

fn is_option(word: &str) -> bool {
    word.starts_with('-') || is_assignment(word)
}

fn by_name(word: &str) -> Option<Runtime> {
    let name = base(word);
    let plain = name.trim_end_matches(|letter: char| letter.is_ascii_digit() || matches!(letter, '.' | '-'));
    let known = PROGRAMS.iter().find(|(_, names)| names.contains(&name) || names.contains(&plain));
    let ending = || ENDINGS.iter().find(|(_, endings)| endings.iter().any(|ending| name.ends_with(ending)));
    known.or_else(ending).map(|(runtime, _)| *runtime)
}

fn by_hints(hints: Hints<'_>) -> Option<Runtime> {
    if hints.is_go {
        return Some(Runtime::Go);
    }
    let line = hints.first_line?;
    by_words(&words(&[line.trim_start_matches("#!").trim()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> Option<Runtime> {
        let argv: alloc::vec::Vec<&str> = command.split(' ').collect();
        detect(&argv, Hints::default())
    }

    #[test]
    fn programs_are_known_by_their_name_with_path_and_version() {
        for (command, runtime) in [
            ("node server.js", Runtime::Node),
            ("/usr/bin/nodejs server.js", Runtime::Node),
            ("node20 server.js", Runtime::Node),
            ("npm start", Runtime::Node),
            ("pnpm run serve", Runtime::Node),
            ("java -jar app.jar", Runtime::Jvm),
            ("./target/app.jar", Runtime::Jvm),
            ("dotnet App.dll", Runtime::DotNet),
            ("deno run main.ts", Runtime::Deno),
            ("bun server.ts", Runtime::Bun),
            ("bundle exec puma", Runtime::Ruby),
            ("ruby3.2 app.rb", Runtime::Ruby),
            ("/opt/venv/bin/python3.11 -m app", Runtime::Python),
            ("gunicorn app:app", Runtime::Python),
            ("go run .", Runtime::Go),
        ] {
            assert_eq!(of(command), Some(runtime), "{command}");
        }
    }

    #[test]
    fn wrappers_are_looked_through() {
        for command in [
            "env PORT=1 node server.js",
            "/usr/bin/env -S node server.js",
            "nice -n 5 node server.js",
            "tini -- node server.js",
            "gosu www-data node server.js",
        ] {
            assert_eq!(of(command), Some(Runtime::Node), "{command}");
        }
    }

    #[test]
    fn a_shell_text_is_read_for_what_it_starts() {
        let texts =
            ["node server.js", "PORT=1 exec node server.js", "npm ci && node server.js", "cd x; node y.js"];
        for text in texts {
            assert_eq!(detect(&["sh", "-c", text], Hints::default()), Some(Runtime::Node), "{text}");
        }
    }

    #[test]
    fn an_unknown_program_is_told_by_its_first_line_or_its_build_note() {
        assert_eq!(of("./server"), None);
        let script = Hints { first_line: Some("#!/usr/bin/env python3"), is_go: false };
        assert_eq!(detect(&["./server"], script), Some(Runtime::Python));
        assert_eq!(detect(&["./server"], Hints { first_line: None, is_go: true }), Some(Runtime::Go));
    }

    #[test]
    fn nothing_is_guessed_from_an_argument_or_from_nothing() {
        assert_eq!(of("./server --mode node"), None);
        assert_eq!(detect(&[], Hints::default()), None);
        assert_eq!(of(""), None);
    }
}
