//! What is measured: memory against line and wall, descriptors, traffic.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, LineGauge, Paragraph, Sparkline};

use super::{Palette, block};
use crate::demo::board::Scene;
use crate::demo::stage::{DESCRIPTOR_LINE, DESCRIPTORS_MAX, LINE_MIB, MIB, WALL_MIB};
use crate::demo::tally::{BUCKET, Bucket};

/// Beside the bars.
const LABEL_WIDTH: u16 = 11;
/// Requests in a bucket that fill the height: a little more than are sent.
const BAR_MAX: u64 = 30;
/// How much of the past the curve shows.
const PAST: Duration = Duration::from_secs(20);

/// Memory over time, with the line and the wall.
pub(super) fn memory(frame: &mut Frame<'_>, area: Rect, scene: &Scene, palette: Palette) {
    let now = Instant::now();
    let points = curve(scene, now);
    let level = |mib: u64| [(-seconds(PAST), as_f64(mib)), (0.0, as_f64(mib))];
    let (line, wall) = (level(LINE_MIB), level(WALL_MIB));
    let over =
        scene.readings.back().and_then(|it| it.memory_bytes).is_some_and(|bytes| bytes > LINE_MIB * MIB);
    let memory = if over { palette.bad() } else { palette.water() };
    let dataset = |data, style: Style| {
        Dataset::default().data(data).style(style).marker(Marker::Braille).graph_type(GraphType::Line)
    };
    let title = title(scene);
    let chart = Chart::new(vec![
        dataset(&wall, palette.bad()),
        dataset(&line, palette.warning()),
        dataset(&points, memory),
    ])
    .block(block(&title, palette))
    .x_axis(Axis::default().bounds([-seconds(PAST), 0.0]))
    .y_axis(Axis::default().bounds([0.0, as_f64(WALL_MIB) * 1.04]).style(palette.faint()));
    frame.render_widget(chart, area);
    label(frame, area, LINE_MIB, "line", palette.warning());
    label(frame, area, WALL_MIB, "wall", palette.bad());
}

fn title(scene: &Scene) -> String {
    let now = scene.readings.back().and_then(|reading| reading.memory_bytes);
    let now = match (now, scene.service.pid) {
        (Some(bytes), _) => format!("{} MiB", bytes / MIB),
        (None, Some(_)) => "not measured".to_owned(),
        (None, None) => "nothing runs".to_owned(),
    };
    format!(" Memory {now} · line {LINE_MIB} · wall {WALL_MIB} ")
}

/// The name of a level, over the left end of its line.
fn label(frame: &mut Frame<'_>, area: Rect, mib: u64, name: &str, style: Style) {
    let inner = block("", Palette { coloured: false }).inner(area);
    let room = as_f64(u64::from(inner.height.saturating_sub(1)));
    let above = (1.0 - as_f64(mib) / (as_f64(WALL_MIB) * 1.04)) * room;
    let down = (0..inner.height).min_by(|one, other| {
        let far = |row: &u16| (f64::from(*row) - above).abs();
        far(one).total_cmp(&far(other))
    });
    let Some(down) = down else { return };
    let text = format!("{name} ");
    let width = u16::try_from(text.len()).unwrap_or(0).min(inner.width);
    let place = Rect { x: inner.x, y: inner.y + down, width, height: 1 };
    frame.render_widget(Line::styled(text, style.add_modifier(Modifier::BOLD)), place);
}

/// Seconds before now, and MiB.
fn curve(scene: &Scene, now: Instant) -> Vec<(f64, f64)> {
    let recent = scene.readings.iter().rev().take_while(|reading| now.duration_since(reading.at) <= PAST);
    let point = |at: Instant, bytes: u64| (-seconds(now.duration_since(at)), as_f64(bytes / 1024) / 1024.0);
    // Without an instance there is no memory to show, and the curve goes down to zero: nothing runs.
    recent.map(|reading| point(reading.at, reading.memory_bytes.unwrap_or(0))).collect()
}

/// Requests and descriptors.
pub(super) fn traffic(frame: &mut Frame<'_>, area: Rect, scene: &Scene, palette: Palette) {
    let frame_of = block(" Traffic, and descriptors ", palette);
    let inner = frame_of.inner(area);
    frame.render_widget(frame_of, area);
    let [rates, bars, total, descriptors] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(inner);
    frame.render_widget(rate_line(scene, palette), rates);
    answered_and_failed(frame, bars, scene, palette);
    let all = scene.tally.total();
    let text = format!("in all     {} sent, {} lost, {} unsure", all.sent, all.failed, all.unsure);
    frame.render_widget(Paragraph::new(text).style(palette.faint()), total);
    frame.render_widget(descriptor_gauge(scene, palette), descriptors);
}

/// The last full half second.
fn rate_line<'a>(scene: &Scene, palette: Palette) -> Line<'a> {
    let buckets = scene.tally.buckets();
    let full = buckets.len().checked_sub(2).and_then(|last| buckets.get(last)).copied().unwrap_or_default();
    let per_second = |count: u64| as_f64(count) / seconds(BUCKET);
    let failing = if full.failed > 0 { palette.bad() } else { palette.faint() };
    Line::from(vec![
        Span::styled(format!("{:>3.0}/s answered", per_second(full.answered)), palette.good()),
        Span::styled(format!("{:>6.0}/s failed", per_second(full.failed)), failing),
    ])
}

/// A column per half second.
fn answered_and_failed(frame: &mut Frame<'_>, area: Rect, scene: &Scene, palette: Palette) {
    let [answered, failed] = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    let bars =
        |frame: &mut Frame<'_>, area: Rect, name: &'static str, count: fn(&Bucket) -> u64, style: Style| {
            let [label, bars] =
                Layout::horizontal([Constraint::Length(LABEL_WIDTH), Constraint::Fill(1)]).areas(area);
            let buckets = scene.tally.buckets();
            let full = &buckets[..buckets.len().saturating_sub(1)];
            let shown = &full[full.len().saturating_sub(usize::from(bars.width))..];
            let data: Vec<u64> = shown.iter().map(count).collect();
            frame.render_widget(Line::styled(name, palette.faint()), label);
            frame.render_widget(Sparkline::default().data(&data).max(BAR_MAX).style(style), bars);
        };
    bars(frame, answered, "answered", |bucket| bucket.answered, palette.good());
    bars(frame, failed, "failed", |bucket| bucket.failed, palette.bad());
}

fn descriptor_gauge<'a>(scene: &Scene, palette: Palette) -> LineGauge<'a> {
    let count = scene.readings.back().and_then(|reading| reading.descriptors);
    let ratio = count.map_or(0.0, |count| (as_f64(count) / as_f64(DESCRIPTORS_MAX)).min(1.0));
    let style =
        if count.is_some_and(|count| count >= DESCRIPTOR_LINE) { palette.bad() } else { palette.water() };
    let count = count.map_or("?".to_owned(), |count| count.to_string());
    LineGauge::default()
        .ratio(ratio)
        .label(format!("{count:>3} of {DESCRIPTORS_MAX} open"))
        .filled_symbol("━")
        .unfilled_symbol("·")
        .filled_style(style)
        .unfilled_style(palette.faint())
}

fn seconds(span: Duration) -> f64 {
    span.as_secs_f64()
}

/// For drawing, where a part in 2^32 does not show.
fn as_f64(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
