//! What is listed: the six layers, the faults of the show, and what happened.

use plimsoll_core::Layer;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{Palette, block, cut};
use crate::demo::board::{Note, Scene, Tone};
use crate::demo::fault::FAULTS;
use crate::demo::report::{Row, span};

/// The six layers: how each is enforced, how often it acted, and which one acts now.
pub(super) fn layers(frame: &mut Frame<'_>, area: Rect, scene: &Scene, palette: Palette) {
    let frame_of = block(" The six layers ", palette);
    let room = usize::from(frame_of.inner(area).width).saturating_sub(NAME_WIDTH);
    let line = |layer: &Layer| layer_line(scene, *layer, room, palette);
    let lines: Vec<Line<'_>> = Layer::ALL.iter().map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(frame_of), area);
}

/// The mark, the name and the gap behind it.
const NAME_WIDTH: usize = 15;

fn layer_line(scene: &Scene, layer: Layer, room: usize, palette: Palette) -> Line<'_> {
    let name = layer.name();
    let has = |layers: &[(String, std::time::Instant)]| layers.iter().any(|(known, _)| known == name);
    let acts = scene.open_incident().is_some_and(|incident| has(&incident.layers));
    let times = scene.incidents.iter().filter(|incident| has(&incident.layers)).count();
    let (mark, style, what) = match (acts, times) {
        (true, _) => ("▶", palette.warning().add_modifier(Modifier::BOLD), "ACTS".to_owned()),
        (false, 1..) => ("✓", palette.good(), format!("acted {times}x")),
        (false, 0) => ("·", Style::new(), String::new()),
    };
    let by = scene.service.enforced_by(name).unwrap_or("…");
    let by = if what.is_empty() { by.to_owned() } else { format!(" · {by}") };
    // What cannot be shown whole says less than nothing, once the layer acted.
    let fits = what.is_empty() || what.chars().count() + by.chars().count() <= room;
    let by = if fits { cut(&by, room) } else { String::new() };
    Line::from(vec![
        Span::styled(format!("{mark} {name:<12} {what}"), style),
        Span::styled(by, palette.faint()),
    ])
}

/// What was done, what is being done and what is still to come.
pub(super) fn faults(frame: &mut Frame<'_>, area: Rect, scene: &Scene, palette: Palette) {
    let line = |number: usize| match (scene.rows.get(number), scene.act) {
        (Some(row), _) => done_line(row, palette),
        (None, Some(act)) if act == number => {
            let style = palette.warning().add_modifier(Modifier::BOLD);
            Line::styled(format!("▶ {}", FAULTS[number].name), style)
        }
        (None, _) => Line::styled(format!("· {}", FAULTS[number].name), palette.faint()),
    };
    let lines: Vec<Line<'_>> = (0..FAULTS.len()).map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(block(" Faults: detected in, dark for ", palette)), area);
}

fn done_line<'a>(row: &Row, palette: Palette) -> Line<'a> {
    let (mark, style) = if row.is_well() { ("✓", palette.good()) } else { ("✗", palette.bad()) };
    let detected = row.detected.map_or("never".to_owned(), span);
    let dark = span(row.traffic.dark);
    Line::from(vec![
        Span::styled(format!("{mark} {:<23}", row.fault), style),
        Span::raw(format!("{detected:>7} {dark:>7}")),
    ])
}

/// The last things that happened, newest at the bottom.
pub(super) fn notes(frame: &mut Frame<'_>, area: Rect, scene: &Scene, palette: Palette) {
    let frame_of = block(" What happens ", palette);
    let inner = frame_of.inner(area);
    let recent = &scene.notes[scene.notes.len().saturating_sub(usize::from(inner.height))..];
    let room = usize::from(inner.width);
    let lines: Vec<Line<'_>> = recent.iter().map(|note| note_line(note, room, palette)).collect();
    frame.render_widget(Paragraph::new(lines).block(frame_of), area);
}

/// The time and the mark in front of a text.
const STAMP_WIDTH: usize = 8;

fn note_line(note: &Note, room: usize, palette: Palette) -> Line<'_> {
    let (mark, style) = match note.tone {
        Tone::Plain => (" ", Style::new()),
        Tone::Fault => ("▶", Style::new().add_modifier(Modifier::BOLD)),
        Tone::Warning => ("!", palette.warning()),
        Tone::Good => ("✓", palette.good()),
        Tone::Bad => ("✗", palette.bad()),
    };
    let text = cut(&note.text, room.saturating_sub(STAMP_WIDTH));
    Line::from(vec![
        Span::styled(format!("{:>5.1} ", note.at.as_secs_f64()), palette.faint()),
        Span::styled(format!("{mark} {text}"), style),
    ])
}
