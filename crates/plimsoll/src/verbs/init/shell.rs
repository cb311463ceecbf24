//! Command texts from other people's files, as argv.

use crate::config::placeholders;

/// The text as argv; through a shell where it needs one. `$PORT` becomes `{port}`.
pub(super) fn argv(text: &str) -> Vec<String> {
    plain(text).unwrap_or_else(|| {
        // exec, so that signals reach the program and not the shell; only a single command can be exec'd.
        let one = !text.contains(['&', '|', ';', '\n', '(']) && !begins_with_assignment(text);
        let text = if one && !text.starts_with("exec ") { format!("exec {text}") } else { text.to_owned() };
        vec!["sh".to_owned(), "-c".to_owned(), placeholders::escaped(&text)]
    })
}

fn begins_with_assignment(text: &str) -> bool {
    text.split_whitespace().next().is_some_and(|word| word.contains('='))
}

/// The words of a text that needs no shell; `None` where it does, or where it is empty.
pub(super) fn plain(text: &str) -> Option<Vec<String>> {
    let text = placeholders::escaped(text).replace("${PORT}", "{port}").replace("$PORT", "{port}");
    let needs_shell =
        text.contains(['$', '&', '|', ';', '<', '>', '`', '(', ')', '*', '?', '~', '#', '\\', '\n']);
    if needs_shell || begins_with_assignment(&text) {
        return None;
    }
    let words = words(&text)?;
    (!words.is_empty()).then_some(words)
}

/// `None` when a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in text.chars() {
        match quote {
            Some(mark) if letter == mark => quote = None,
            None if matches!(letter, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            None if letter.is_whitespace() => found.extend(word.take()),
            Some(_) | None => word.get_or_insert_default().push(letter),
        }
    }
    found.extend(word);
    quote.is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_text_is_split_as_a_shell_would() {
        assert_eq!(argv("node  server.js 'a b' \"\""), ["node", "server.js", "a b", ""]);
        assert_eq!(
            argv("gunicorn app:app --bind 0.0.0.0:$PORT"),
            ["gunicorn", "app:app", "--bind", "0.0.0.0:{port}"]
        );
    }

    #[test]
    fn a_text_that_needs_a_shell_gets_one() {
        assert_eq!(argv("node a.js > log"), ["sh", "-c", "exec node a.js > log"]);
        assert_eq!(argv("npm ci && node a.js"), ["sh", "-c", "npm ci && node a.js"]);
        assert_eq!(argv("A=b node a.js"), ["sh", "-c", "A=b node a.js"]);
        assert_eq!(argv("echo 'open"), ["sh", "-c", "exec echo 'open"]);
    }

    #[test]
    fn braces_of_the_text_are_no_placeholders() {
        assert_eq!(argv("serve --name={host}"), ["serve", "--name={{host}}"]);
    }
}
