//! Command lines and option variables as words, well enough to find a flag in them.

use alloc::string::String;
use alloc::vec::Vec;

const SCRIPTS: [&str; 7] = [".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".json"];
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "zsh", "ksh"];

/// The words of `argv`; where it is a shell with `-c`, the words of its last command instead.
pub(super) fn words(argv: &[&str]) -> Vec<String> {
    match script(argv) {
        Some(text) => last_command(text),
        None if argv.len() == 1 => split(argv[0]),
        None => argv.iter().map(|word| String::from(*word)).collect(),
    }
}

/// The text of `sh -c TEXT`.
fn script<'a>(argv: &[&'a str]) -> Option<&'a str> {
    let (program, rest) = argv.split_first()?;
    if !SHELLS.contains(&base(program)) {
        return None;
    }
    let at = rest.iter().position(|word| is_command_flag(word))?;
    rest.get(at + 1).copied()
}

/// `-c`, also bundled as in `-lc` and `-ec`.
fn is_command_flag(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|letters| !letters.starts_with('-') && letters.ends_with('c'))
}

pub(super) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The words of a shell text's last command: what runs on, after the preparations.
fn last_command(text: &str) -> Vec<String> {
    let all = split(text);
    let ends = |word: &String| matches!(word.as_str(), "&&" | "||" | ";" | "|" | "&");
    match all.iter().rposition(ends) {
        Some(at) if at + 1 < all.len() => all[at + 1..].to_vec(),
        Some(at) => all[..at].to_vec(),
        None => all,
    }
}

/// Splits at spaces outside quotes, and around `;`. Expansions stay as they are written.
fn split(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for letter in text.chars() {
        match quote {
            Some(mark) if letter == mark => quote = None,
            None if matches!(letter, '"' | '\'') => quote = Some(letter),
            None if letter.is_whitespace() => found.push(core::mem::take(&mut word)),
            None if letter == ';' => {
                found.push(core::mem::take(&mut word));
                found.push(String::from(";"));
            }
            Some(_) | None => word.push(letter),
        }
    }
    found.push(word);
    found.retain(|word| !word.is_empty());
    found
}

/// The words before the script's own arguments: `node --flag app.js --not-a-flag-of-node`.
pub(super) fn program_flags(argv: &[String]) -> &[String] {
    let script = argv.iter().position(|word| !word.starts_with('-') && is_script(word));
    &argv[..script.unwrap_or(argv.len())]
}

fn is_script(word: &str) -> bool {
    SCRIPTS.iter().any(|ending| word.ends_with(ending))
}

/// Whether one of `flags` is among `words`, written with dashes or underscores.
pub(super) fn flag_in(words: &[String], flags: &[&str]) -> bool {
    let dashed = |word: &String| word.replace('_', "-");
    words.iter().map(dashed).any(|word| flags.iter().any(|flag| word.starts_with(flag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_command_of_a_shell_text_is_the_one_that_runs_on() {
        assert_eq!(
            words(&["/bin/sh", "-c", "npm ci && exec node 'my app.js'"]),
            ["exec", "node", "my app.js"]
        );
        assert_eq!(words(&["bash", "-lc", "cd app; node x.js"]), ["node", "x.js"]);
        assert_eq!(words(&["sh", "-c", "node x.js &"]), ["node", "x.js"]);
    }

    #[test]
    fn a_shell_without_a_text_is_just_a_command() {
        assert_eq!(words(&["sh", "start.sh"]), ["sh", "start.sh"]);
        assert_eq!(words(&["sh", "-c"]), ["sh", "-c"]);
    }

    #[test]
    fn flags_behind_the_script_are_the_scripts_own() {
        let argv = words(&["node", "-r", "esm", "app.js", "--max-old-space-size=9"]);
        assert_eq!(program_flags(&argv), ["node", "-r", "esm"]);
    }
}
