//! `{port}` and `{socket}` in a command. `{{name}}` stands for a literal `{name}`.

const KNOWN: [&str; 2] = ["port", "socket"];

/// A piece of an argument.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
    /// `{name}`, written with its braces doubled.
    Literal(&'a str),
}

/// Whether one of `argv` asks for the instance's port.
pub fn wants_port(argv: &[String]) -> bool {
    argv.iter().any(|argument| pieces(argument).contains(&Piece::Name("port")))
}

/// Whether one of `argv` asks for a socket path.
pub fn wants_socket(argv: &[String]) -> bool {
    argv.iter().any(|argument| pieces(argument).contains(&Piece::Name("socket")))
}

/// `argument` with the instance's own values; a value that is not there leaves its placeholder.
pub fn substitute(argument: &str, port: Option<u16>, socket: Option<&str>) -> String {
    let mut text = String::new();
    for piece in pieces(argument) {
        match (piece, port, socket) {
            (Piece::Name("port"), Some(port), _) => text.push_str(&port.to_string()),
            (Piece::Name("socket"), _, Some(socket)) => text.push_str(socket),
            (Piece::Name(name), _, _) => text.extend(["{", name, "}"]),
            (Piece::Text(piece) | Piece::Literal(piece), _, _) => text.push_str(piece),
        }
    }
    text
}

/// `text` so that its braces stay what they are.
pub fn escaped(text: &str) -> String {
    let write = |piece| match piece {
        Piece::Text(text) => text.to_owned(),
        Piece::Name(name) => format!("{{{{{name}}}}}"),
        // What stands doubled is doubled once more, or it would lose a pair.
        Piece::Literal(text) => format!("{{{{{text}}}}}"),
    };
    pieces(text).into_iter().map(write).collect()
}

/// The first placeholder of `argument` that does not exist.
pub fn unknown(argument: &str) -> Option<&str> {
    pieces(argument).into_iter().find_map(|piece| match piece {
        Piece::Name(name) if !KNOWN.contains(&name) => Some(name),
        Piece::Name(_) | Piece::Text(_) | Piece::Literal(_) => None,
    })
}

/// Braces around anything but a plain lower-case word are text, as are a shell's `${name}` and a template's `{{.Name}}`.
fn pieces(argument: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(open) = argument[at..].find('{').map(|open| at + open) {
        let name_at = open + 1;
        let length = argument[name_at..].find(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
        let end = length.map(|length| name_at + length);
        let Some(end) = end.filter(|end| *end > name_at && argument[*end..].starts_with('}')) else {
            at = name_at;
            continue;
        };
        let before = argument[..open].chars().next_back();
        let doubled = before == Some('{') && argument[end..].starts_with("}}");
        at = end + 1;
        if doubled {
            found.push(Piece::Text(&argument[start..open - 1]));
            found.push(Piece::Literal(&argument[open..=end]));
            start = end + 2;
            at = start;
        } else if before != Some('$') {
            found.push(Piece::Text(&argument[start..open]));
            found.push(Piece::Name(&argument[name_at..end]));
            start = at;
        }
    }
    found.push(Piece::Text(&argument[start..]));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(argument: &str) -> String {
        substitute(argument, Some(4000), Some("/run/x.sock"))
    }

    #[test]
    fn placeholders_are_filled_wherever_they_stand() {
        assert_eq!(filled("--listen=127.0.0.1:{port}"), "--listen=127.0.0.1:4000");
        assert_eq!(filled("{port}-{socket}"), "4000-/run/x.sock");
        assert_eq!(substitute("{port}", None, None), "{port}");
    }

    #[test]
    fn what_is_escaped_stays_what_it_was() {
        for text in ["{port}", "{{port}}", "{{{socket}}}", "{{port}", "{port}}", "${{port}}", "{other}", "{"]
        {
            assert_eq!(filled(&escaped(text)), text);
        }
    }

    #[test]
    fn other_braces_are_text() {
        for text in
            ["{}", "{\"port\": 1}", "${port}", "{{.Name}}", "{PORT}", "{", "}", "{port", "${HOME}", "{é}"]
        {
            assert_eq!(filled(text), text);
            assert_eq!(unknown(text), None, "{text}");
        }
        assert_eq!(filled("{{port}} {port}"), "{port} 4000");
    }

    #[test]
    fn an_unknown_placeholder_is_found() {
        assert_eq!(unknown("--x={prot}"), Some("prot"));
        assert_eq!(unknown("{port} {{prot}}"), None);
        assert!(wants_port(&["a".into(), "--p={port}".into()]));
        assert!(!wants_port(&["{{port}}".into()]));
        assert!(wants_socket(&["{socket}".into()]));
    }

    proptest! {
        #[test]
        fn text_without_braces_is_left_alone_and_nothing_panics(text in ".{0,40}", braces in "[{}$a-z]{0,30}") {
            let _ = (filled(&braces), unknown(&braces));
            if !text.contains('{') {
                prop_assert_eq!(filled(&text), text);
            }
        }
    }
}
