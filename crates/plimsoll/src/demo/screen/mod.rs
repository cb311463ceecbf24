//! The show on a terminal: drawn ten times a second from the board, and gone without a trace at the end.

mod gauges;
mod lists;

use std::io;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect, Size};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Padding};
use ratatui::{DefaultTerminal, Frame};
use tokio::time::{MissedTickBehavior, interval};

use super::board::{Board, Scene};
use super::fault::FAULTS;

const REDRAW: Duration = Duration::from_millis(100);
/// Below this not everything has its place, and plain lines say more.
const SIZE_MIN: Size = Size { width: 80, height: 24 };
/// What the show takes, for the progress in the head line.
const SHOW_SECONDS: u64 = 40;

/// Why the view ended before the show.
#[derive(Debug)]
pub(super) enum Ended {
    /// The person at the terminal has seen enough.
    Quit,
    Terminal(io::Error),
}

/// The terminal as long as it is ours; it is given back when this is dropped, and on a panic.
#[derive(Debug)]
pub(super) struct Screen {
    /// Taken only when dropped.
    terminal: Option<DefaultTerminal>,
    palette: Palette,
}

impl Screen {
    /// `None` where the view has no place: the terminal is too small, or will not be taken over.
    pub(super) fn take() -> Option<Self> {
        let size = ratatui::crossterm::terminal::size().ok()?;
        if size.0 < SIZE_MIN.width || size.1 < SIZE_MIN.height {
            return None;
        }
        let terminal = ratatui::try_init().ok()?;
        Some(Self { terminal: Some(terminal), palette: Palette::by_environment() })
    }

    /// Draws until the person quits or the terminal fails.
    pub(super) async fn face(&mut self, board: &Board) -> Ended {
        let Some(terminal) = self.terminal.as_mut() else { std::future::pending().await };
        let mut ticks = interval(REDRAW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let palette = self.palette;
            let drawn = terminal.draw(|frame| board.look(|scene| draw(frame, scene, palette)));
            match drawn.and_then(|_| quit_asked()) {
                Ok(false) => {}
                Ok(true) => return Ended::Quit,
                Err(error) => return Ended::Terminal(error),
            }
        }
    }
}

impl Drop for Screen {
    /// Ratatui complains on standard error where it cannot give the terminal back. When the terminal was closed, that
    /// fails too and panics, and guard and service would live on: so whatever fails is left alone.
    fn drop(&mut self) {
        let Some(mut terminal) = self.terminal.take() else { return };
        let is_there = terminal.show_cursor().is_ok();
        let _ = ratatui::try_restore();
        if !is_there {
            std::mem::forget(terminal);
        }
    }
}

/// Whether q, Esc or Ctrl-C was pressed; the terminal gives us Ctrl-C as a key while it is ours.
fn quit_asked() -> io::Result<bool> {
    while event::poll(Duration::ZERO)? {
        if let Event::Key(key) = event::read()? {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            let quits = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
            if quits || (control && key.code == KeyCode::Char('c')) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Colours beside words and signs, never instead of them; without colours where `NO_COLOR` says so.
#[derive(Clone, Copy, Debug)]
struct Palette {
    coloured: bool,
}

impl Palette {
    fn by_environment() -> Self {
        Self { coloured: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn colour(self, colour: Color) -> Style {
        if self.coloured { Style::new().fg(colour) } else { Style::new() }
    }

    fn good(self) -> Style {
        self.colour(Color::Green)
    }

    fn warning(self) -> Style {
        self.colour(Color::Yellow)
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn water(self) -> Style {
        self.colour(Color::Cyan)
    }

    fn faint(self) -> Style {
        if self.coloured {
            Style::new().fg(Color::DarkGray)
        } else {
            Style::new().add_modifier(Modifier::DIM)
        }
    }
}

fn draw(frame: &mut Frame<'_>, scene: &Scene, palette: Palette) {
    // A terminal with more room gives it to the curve and to what happened.
    let tall = frame.area().height.saturating_sub(SIZE_MIN.height);
    let [head, top, middle] = [1, 8 + tall / 3, 8].map(Constraint::Length);
    let rows = [head, top, middle, Constraint::Min(6)];
    let [head, top, middle, bottom] = Layout::vertical(rows).areas(frame.area());
    draw_head(frame, head, scene, palette);
    let [curve, layers] = halves(top);
    gauges::memory(frame, curve, scene, palette);
    lists::layers(frame, layers, scene, palette);
    let [faults, traffic] = halves(middle);
    lists::faults(frame, faults, scene, palette);
    gauges::traffic(frame, traffic, scene, palette);
    lists::notes(frame, bottom, scene, palette);
}

fn halves(area: Rect) -> [Rect; 2] {
    Layout::horizontal([Constraint::Percentage(56), Constraint::Fill(1)]).areas(area)
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, scene: &Scene, palette: Palette) {
    let (done, all, seconds) = (scene.rows.len(), FAULTS.len(), scene.started.elapsed().as_secs());
    let right = format!("{done} of {all} faults · {seconds} of about {SHOW_SECONDS} s · q quits ");
    let width = u16::try_from(right.chars().count()).unwrap_or(u16::MAX);
    let [left, right_area] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(width)]).areas(area);
    let service = &scene.service;
    let state = if service.state.is_empty() { "starting" } else { &service.state };
    let style = if state == "ready" { palette.good() } else { palette.warning() };
    let name = service.instance.as_deref().unwrap_or("reports");
    let head = Line::from(vec![
        Span::styled(" plimsoll demo ", Style::new().add_modifier(Modifier::REVERSED)),
        Span::raw(format!(" {name} ")),
        Span::styled(state.to_uppercase(), style.add_modifier(Modifier::BOLD)),
    ]);
    frame.render_widget(head, left);
    frame.render_widget(Line::styled(right, palette.faint()), right_area);
}

/// As much of the text as fits, and a sign where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn block(title: &str, palette: Palette) -> Block<'_> {
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(palette.faint())
        .title(Span::styled(title, Style::new().add_modifier(Modifier::BOLD)))
        .padding(Padding::horizontal(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::board::{Reading, Tone};
    use crate::demo::event::Event;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Instant;

    fn drawn(width: u16, height: u16, board: &Board) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        let palette = Palette { coloured: false };
        terminal.draw(|frame| board.look(|scene| draw(frame, scene, palette))).expect("it draws");
        terminal.backend().to_string()
    }

    #[test]
    fn an_empty_board_can_be_drawn_at_any_size() {
        let board = Board::new();
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            drawn(width, height, &board);
        }
    }

    #[test]
    fn the_layer_that_acts_is_marked_without_colour() {
        let board = Board::new();
        board.write(|scene| {
            let now = Instant::now();
            scene.act = Some(0);
            scene.note(Tone::Fault, "fault 1 of 6: heap leak".to_owned());
            scene.read(Reading { at: now, memory_bytes: Some(80 << 20), descriptors: Some(20) });
            let opened = Event {
                kind: "incident_opened".to_owned(),
                who: "reports.1".to_owned(),
                layer: Some("kill_switch".to_owned()),
                message: "incident 1 opened".to_owned(),
                severity: "warning".to_owned(),
                incident: Some(1),
                dark_ms: None,
            };
            scene.told(&opened, now);
        });
        let text = drawn(80, 24, &board);
        assert!(text.lines().any(|line| line.contains("▶ kill_switch") && line.contains("ACTS")), "{text}");
        assert!(text.contains("80 MiB"), "{text}");
        assert!(text.contains("incident 1 opened"), "{text}");
    }
}
