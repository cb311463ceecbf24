//! The show as lines: one per event, as they come.

use std::io::{self, Write};

use super::board::{Board, Note, Tone};

/// Writes every new line until the writer fails; it never ends by itself.
pub(super) async fn face(board: &Board, written: &mut usize, out: &mut impl Write) -> io::Error {
    let mut changes = board.changes();
    loop {
        if let Err(error) = write_new(board, written, out) {
            return error;
        }
        // The board outlives its faces, so there is always somebody to tell of a change.
        let _ = changes.changed().await;
    }
}

/// Writes what was noted since `written`.
pub(super) fn write_new(board: &Board, written: &mut usize, out: &mut impl Write) -> io::Result<()> {
    let notes: Vec<Note> = board.look(|scene| scene.notes.get(*written..).unwrap_or_default().to_vec());
    *written += notes.len();
    for note in &notes {
        writeln!(out, "{}", line(note))?;
    }
    out.flush()
}

fn line(note: &Note) -> String {
    let mark = match note.tone {
        Tone::Fault => ">> ",
        Tone::Warning => "!  ",
        Tone::Plain | Tone::Good | Tone::Bad => "   ",
    };
    let gap = if note.tone == Tone::Fault { "\n" } else { "" };
    format!("{gap}{:>6.2} s  {mark}{}", note.at.as_secs_f64(), note.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_written_once_with_its_time_and_mark() {
        let board = Board::new();
        board.note(Tone::Fault, "fault 1 of 6: heap leak".to_owned());
        let (mut written, mut out) = (0, Vec::new());
        write_new(&board, &mut written, &mut out).expect("memory takes everything");
        board.note(Tone::Warning, "reports.1: incident 1 opened".to_owned());
        write_new(&board, &mut written, &mut out).expect("memory takes everything");
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].ends_with(" s  >> fault 1 of 6: heap leak"), "{text}");
        assert!(lines[2].ends_with(" s  !  reports.1: incident 1 opened"), "{text}");
    }
}
