//! What is on the screen.

use jiff::tz::TimeZone;
use ppu_uringd::model::attention::{Severity, is_well};
use ppu_uringd::model::history::Sample;
use ppu_uringd::model::status::{Fill, FillOf, StatusReport, Told};
use ppu_uringd::model::units::{bytes, bytes_per_s, duration, latency, one_line};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline, Wrap};

use super::super::page::{
    Cell, DETECTOR_HEAD, Paint, STORAGE_HEAD, columns, detector_row, local_time, storage_row,
};
use super::source::View;

/// Rows of a graph.
const GRAPH_ROWS: u16 = 2;
/// Columns of the text beside a graph, and of a fill level's name.
const LABEL_COLUMNS: u16 = 34;
/// Columns of a fill level's bar.
const BAR_COLUMNS: usize = 30;
/// What is wrong must not push everything else off the screen.
const ATTENTION_ROWS_MAX: usize = 8;

/// Draws all of it, the most important first; what does not fit is left out at the bottom.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, colour: bool, zone: &TimeZone) {
    let area = frame.area();
    let Some(report) = &view.report else {
        let text = view.silence.clone().unwrap_or_else(|| "asking the daemon ...".to_owned());
        let lines = vec![title("ppu-uringd", area.width), Line::raw(one_line(&text))];
        return frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
    };
    let mut attention = attention(view, report, usize::from(area.width));
    attention.truncate(ATTENTION_ROWS_MAX.min(usize::from(area.height / 2)).max(1));
    let paint = Paint(true);
    let detectors =
        table(DETECTOR_HEAD, report.detectors.iter().map(|detector| detector_row(detector, paint)));
    let storages = table(STORAGE_HEAD, report.storages.iter().map(|storage| storage_row(storage, paint)));
    let fills: Vec<Line<'_>> =
        report.fills.iter().filter(|fill| fill.room.total_bytes > 0).map(fill).collect();
    let graphs = graphs(report, &view.samples);
    let graph_rows = graphs.len() as u16 * GRAPH_ROWS;
    let [head, wrong, links, disks, full, drawn, told] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(attention.len() as u16 + 1),
        Constraint::Length(detectors.len() as u16 + 1),
        Constraint::Length(storages.len() as u16 + 1),
        Constraint::Length(fills.len() as u16 + 1),
        Constraint::Length(graph_rows + 1),
        Constraint::Min(0),
    ])
    .areas(area);
    frame.render_widget(title(&headline(report), area.width), head);
    frame.render_widget(Paragraph::new(attention), wrong);
    frame.render_widget(Paragraph::new(detectors), links);
    frame.render_widget(Paragraph::new(storages), disks);
    frame.render_widget(Paragraph::new(fills), full);
    for (graph, area) in
        graphs.iter().zip(Layout::vertical(vec![GRAPH_ROWS; graphs.len()]).split(drawn).iter())
    {
        graph.draw(frame, *area);
    }
    let (rows, width) = (usize::from(told.height), usize::from(told.width));
    let messages = report.messages.iter().rev().take(rows).flat_map(|told| message(told, zone, width));
    frame.render_widget(Paragraph::new(messages.take(rows).collect::<Vec<_>>()), told);
    if !colour {
        let all = frame.area();
        frame.buffer_mut().set_style(all, Style::reset());
    }
}

fn headline(report: &StatusReport) -> String {
    let daemon = &report.daemon;
    let up = duration(daemon.uptime_s.saturating_mul(1000) as i64);
    format!("{}, pid {}, up {up}, engine {}", daemon.software, daemon.pid, daemon.engine)
}

fn title(text: &str, width: u16) -> Line<'static> {
    let quit = "q: quit";
    let room = usize::from(width).saturating_sub(quit.len());
    let text: String = one_line(text).chars().take(room.saturating_sub(1)).collect();
    Line::from(format!("{text:<room$}{quit}")).reversed()
}

fn attention(view: &View, report: &StatusReport, width: usize) -> Vec<Line<'static>> {
    let silence = view.silence.iter().flat_map(|reason| {
        wrapped("NO NEWS ".bold().red(), &format!("{reason} What follows is as it was then."), width)
    });
    let problems = report.problems.iter().flat_map(|problem| {
        let word = match problem.severity {
            Severity::Error => "ERROR   ".bold().red(),
            Severity::Warning => "WARNING ".yellow(),
            Severity::Advice => Span::raw("ADVICE  "),
        };
        wrapped(word, &problem.text, width)
    });
    let is_well = view.silence.is_none() && is_well(&report.problems);
    let well = is_well.then(|| Line::from("All well.".green()));
    well.into_iter().chain(silence).chain(problems).collect()
}

/// The text in as many lines as it needs, all beside the word.
fn wrapped(word: Span<'static>, text: &str, width: usize) -> Vec<Line<'static>> {
    let (indent, text) = (word.width(), one_line(text));
    let room = width.saturating_sub(indent).max(1);
    let mut pieces = vec![String::new()];
    for part in text.split(' ') {
        let piece = pieces.last_mut().filter(|piece| piece.chars().count() + part.chars().count() < room);
        match piece {
            Some(piece) => *piece += &format!("{}{part}", if piece.is_empty() { "" } else { " " }),
            None => pieces.push(part.to_owned()),
        }
    }
    let blank = Span::raw(" ".repeat(indent));
    let starts = std::iter::once(word).chain(std::iter::repeat(blank));
    starts.zip(pieces).map(|(start, piece)| Line::from(vec![start, Span::raw(piece)])).collect()
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<Cell>>) -> Vec<Line<'static>> {
    let line = |row: Vec<Cell>| Line::from(row.into_iter().map(span).collect::<Vec<_>>());
    columns(head, rows).into_iter().map(line).collect()
}

fn span(cell: Cell) -> Span<'static> {
    let style = match cell.colour {
        "" => Style::new(),
        "32" => Style::new().fg(Color::Green),
        "33" => Style::new().fg(Color::Yellow),
        _ => Style::new().fg(Color::Red).bold(),
    };
    Span::styled(cell.text, style)
}

fn fill(fill: &Fill) -> Line<'static> {
    let room = fill.room;
    let used = 1.0 - room.free_bytes as f64 / room.total_bytes as f64;
    let bar = (used * BAR_COLUMNS as f64).round().clamp(0.0, BAR_COLUMNS as f64) as usize;
    let name = match fill.of {
        FillOf::Ramdisk => "PPU's ramdisk".to_owned(),
        FillOf::Detector => format!("{}'s ramdisk", fill.name),
        FillOf::Storage => fill.name.clone(),
    };
    let name: String = one_line(&name).chars().take(20).collect();
    let colour = match used {
        0.95.. => Color::Red,
        0.8.. => Color::Yellow,
        _ => Color::Cyan,
    };
    let soon = fill.full_in_s.map(|seconds| {
        let text = format!(", full in {} at this rate", duration(seconds.saturating_mul(1000) as i64));
        if seconds < 300 { text.red().bold() } else { text.into() }
    });
    let mut spans = vec![
        format!("{name:<20} ").into(),
        "█".repeat(bar).fg(colour),
        "░".repeat(BAR_COLUMNS - bar).dark_gray(),
        format!(" {:3.0} %, {} of {} free", used * 100.0, bytes(room.free_bytes), bytes(room.total_bytes))
            .into(),
    ];
    spans.extend(soon);
    Line::from(spans)
}

/// A line of bars, and what it means.
struct Graph {
    label: String,
    values: Vec<u64>,
    colour: Color,
}

fn graphs(report: &StatusReport, samples: &[Sample]) -> Vec<Graph> {
    let landed = |sample: &Sample| sample.detectors.iter().map(|d| d.landed.bytes_per_s).sum::<f64>();
    let files = |sample: &Sample| sample.detectors.iter().map(|d| d.landed.files_per_s).sum::<f64>();
    let last = samples.last();
    let mut graphs = vec![
        Graph {
            label: format!(
                "landed {}, {:.0}/s",
                bytes_per_s(last.map_or(0.0, landed)),
                last.map_or(0.0, files)
            ),
            values: samples.iter().map(|sample| landed(sample) as u64).collect(),
            colour: Color::Green,
        },
        Graph {
            label: match report.latency.visible {
                times if times.files == 0 => "close to visible".to_owned(),
                times => format!("visible p50 {}, p99 {}", latency(times.p50_us), latency(times.p99_us)),
            },
            values: samples.iter().map(|sample| sample.visible.p99_us).collect(),
            colour: Color::Magenta,
        },
    ];
    graphs.extend(report.storages.iter().enumerate().map(|(n, storage)| {
        let stored = |sample: &Sample| sample.storages.get(n).map_or(0.0, |copied| copied.stored.bytes_per_s);
        Graph {
            label: format!("stored {} {}", storage.id, bytes_per_s(last.map_or(0.0, stored))),
            values: samples.iter().map(|sample| stored(sample) as u64).collect(),
            colour: Color::Blue,
        }
    }));
    graphs
}

impl Graph {
    fn draw(&self, frame: &mut Frame<'_>, area: Rect) {
        let [label, bars] =
            Layout::horizontal([Constraint::Length(LABEL_COLUMNS), Constraint::Min(0)]).areas(area);
        frame.render_widget(Paragraph::new(one_line(&self.label)), label);
        let from = self.values.len().saturating_sub(usize::from(bars.width));
        frame.render_widget(
            Sparkline::default().data(&self.values[from..]).style(Style::new().fg(self.colour)),
            bars,
        );
    }
}

/// To its end: that is where it says what to do.
fn message(told: &Told, zone: &TimeZone, width: usize) -> Vec<Line<'static>> {
    let message = &told.message;
    let (code, text) = (message.code.to_string(), format!("{}  {}", message.short, message.long));
    let time = format!("{} ", local_time(told.at_ms, zone)).dark_gray();
    let mut lines = wrapped(time, &format!("{code} {text}"), width);
    if let Some(Line { spans, .. }) = lines.first_mut()
        && let Some(rest) = spans[1].content.strip_prefix(&*code).map(str::to_owned)
    {
        spans.truncate(1);
        spans.extend([code.bold(), rest.into()]);
    }
    lines
}
