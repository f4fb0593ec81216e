//! The live view: circuits against their limits, stations with their reasons, the way to the cloud.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Paragraph};
use siteward::engine::model::alarm::Severity;
use siteward::engine::units::{Current, Phase};

use super::judge::CircuitRecord;
use super::layout::{STATIONS, StationPlan};
use super::scene::{Part, Scene};

/// What the view is made for; smaller terminals are asked to grow.
pub const SMALLEST: (u16, u16) = (100, 30);
/// The cells of a bar. The limit stands at its end; what is above it makes the whole bar red.
const BAR: usize = 32;

const QUIET: Style = Style::new().fg(Color::DarkGray);
const GOOD: Style = Style::new().fg(Color::Green);
const BUSY: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// Draws the scene.
pub fn draw(frame: &mut Frame<'_>, scene: &Scene) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!(
            "The view needs {} x {} characters; this terminal has {} x {}.\nMake it larger, or press q.",
            SMALLEST.0, SMALLEST.1, area.width, area.height
        );
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let [title, circuits, stations, cloud, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Min(6),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(title_line(scene), title);
    frame.render_widget(panel("Circuits", circuit_lines(scene)), circuits);
    frame.render_widget(panel("Charging stations", station_lines(scene, stations)), stations);
    frame.render_widget(panel("Cloud, alarms, news", cloud_lines(scene, cloud)), cloud);
    frame.render_widget(key_line(scene), keys);
}

fn panel<'a>(title: &'a str, lines: Vec<Line<'a>>) -> Paragraph<'a> {
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(QUIET)
        .title(Span::from(format!(" {title} ")).bold());
    Paragraph::new(lines).block(block)
}

fn title_line(scene: &Scene) -> Line<'static> {
    let mut spans = vec![
        Span::from(" Siteward demo ").bold(),
        Span::styled(format!("{}:{:02}  ", scene.seconds / 60, scene.seconds % 60), QUIET),
    ];
    for (name, part) in [("controller", &scene.controller), ("broker", &scene.broker), ("meter", &scene.meter)] {
        match part {
            Part::Up => spans.extend([Span::styled("● ", GOOD), Span::from(format!("{name}  "))]),
            Part::Away(why) => spans.extend([Span::styled("○ ", BAD), Span::styled(format!("{name} {why}  "), BAD)]),
        }
    }
    let (hour, minute) = scene.time_of_day;
    let sum = |value: &siteward::engine::units::PerPhase<Current>| {
        value.iter().map(|(_, value)| value.as_a()).sum::<f64>() / 3.0
    };
    spans.push(Span::styled(
        format!(
            "{hour:02}:{minute:02}  load {:.0} A  PV {:.0} A  restarts {}",
            sum(&scene.building),
            sum(&scene.pv),
            scene.restarts
        ),
        QUIET,
    ));
    Line::from(spans)
}

fn circuit_lines(scene: &Scene) -> Vec<Line<'_>> {
    scene.circuits.iter().flat_map(|circuit| Phase::ALL.map(|phase| circuit_line(scene, circuit, phase))).collect()
}

fn circuit_line<'a>(scene: &'a Scene, circuit: &'a CircuitRecord, phase: Phase) -> Line<'a> {
    let current = circuit.current.of(phase);
    let (now, limit) = (current.as_a(), circuit.limit.as_a());
    let style = match now / limit {
        share if share > 1.0 => BAD,
        share if share > 0.9 => BUSY,
        _ => GOOD,
    };
    let filled = cells(current, circuit.limit);
    let name = if phase == Phase::L1 { circuit.id.as_str() } else { "" };
    let mut spans = vec![
        Span::from(format!(" {name:<7}")).bold(),
        Span::styled(format!("{phase:?} "), QUIET),
        Span::styled("█".repeat(filled), style),
        Span::styled("░".repeat(BAR - filled), QUIET),
        Span::styled("┃", QUIET),
        Span::styled(format!("{now:6.1}"), style),
        Span::styled(format!(" / {limit:>3.0} A   "), QUIET),
    ];
    if let Some(status) = scene.circuit(&circuit.id) {
        let of = |values: [f64; 3]| values[phase.index()];
        let in_force = of(status.limit_a);
        spans.push(Span::from(format!("offered {:5.1}  other {:5.1}", of(status.offered_a), of(status.background_a))));
        spans.push(Span::styled(format!(" ({})", status.background_source), QUIET));
        if in_force < limit {
            spans.push(Span::styled(format!(" limit {in_force:.0}"), BUSY));
        }
    }
    Line::from(spans)
}

/// How much of the bar is filled: a bar that is full is at the limit or above.
fn cells(current: Current, limit: Current) -> usize {
    let cells = i64::try_from(BAR).unwrap_or(0);
    let filled = i64::from(current.ma().max(0)) * cells / i64::from(limit.ma().max(1));
    usize::try_from(filled).unwrap_or(0).min(BAR)
}

fn station_lines(scene: &Scene, area: Rect) -> Vec<Line<'_>> {
    let head = format!(
        " {:<4}{:<7}{:<8}{:<14}{:>7}{:>20}  {}",
        "", "OCPP", "phases", "state", "offer", "draw on L1 L2 L3", "why"
    );
    let mut lines = vec![Line::styled(head, QUIET)];
    lines.extend(STATIONS.iter().map(|plan| station_line(scene, plan, area.width)));
    lines
}

fn station_line<'a>(scene: &'a Scene, plan: &'a StationPlan, width: u16) -> Line<'a> {
    let truth = scene.stations.iter().find(|station| station.id == plan.id);
    let phases: String = plan.phases.iter().map(|phase| format!("{}", phase.index() + 1)).collect();
    let draw = truth.map_or(String::new(), |truth| {
        truth
            .current
            .iter()
            .map(|(_, value)| if value.ma() == 0 { "    ·".to_owned() } else { format!("{:5.1}", value.as_a()) })
            .collect()
    });
    let soc = truth.and_then(|truth| truth.soc_percent).map_or(String::new(), |soc| format!("{soc}%"));
    let (state, offer, why) = match scene.evse(plan.id) {
        _ if truth.is_some_and(|truth| !truth.plugged) => {
            ("unplugged".to_owned(), String::new(), "the network cable is out")
        }
        None => (String::new(), String::new(), ""),
        Some((false, evse)) => ("offline".to_owned(), String::new(), evse.explanation.as_str()),
        Some((true, evse)) => {
            let state = evse.status.clone().unwrap_or_default();
            let offer = evse.offered_a.map_or(String::new(), |offer| format!("{offer:.1} A"));
            (state, offer, evse.explanation.as_str())
        }
    };
    // The sentence begins with the offer, which stands in a column of its own.
    let why = why.strip_prefix(&offer).map_or(why, |rest| rest.trim_start_matches([':', ',', ' ']));
    let style = match state.as_str() {
        "unplugged" | "offline" | "Faulted" => BAD,
        "Charging" => GOOD,
        "Available" | "" => QUIET,
        _ => BUSY,
    };
    // What stands before the reason, and the two borders.
    let room = usize::from(width).saturating_sub(65);
    Line::from(vec![
        Span::from(format!(" {:<4}", plan.id)).bold(),
        Span::styled(format!("{:<7}{phases:<8}", plan.version.subprotocol().trim_start_matches("ocpp")), QUIET),
        Span::styled(format!("{state:<14.14}"), style),
        Span::from(format!("{offer:>7}")),
        Span::from(format!("{draw:>16}{soc:>4}")),
        Span::styled(format!("  {}", clipped(why, room)), QUIET),
    ])
}

/// The text, shortened with an ellipsis if there is no room for it.
fn clipped(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

fn cloud_lines(scene: &Scene, area: Rect) -> Vec<Line<'_>> {
    let room = usize::from(area.width).saturating_sub(4);
    let cloud = &scene.cloud;
    let mut first = vec![
        Span::from(" cloud has "),
        Span::from(format!("{} events", cloud.events)).bold(),
        Span::styled(
            format!(", {} transactions ended, {} came twice and were dropped", cloud.ended, cloud.duplicates),
            QUIET,
        ),
    ];
    if let Some(status) = &scene.status {
        let backlog = status.cloud.as_ref().map_or(0, |link| link.backlog);
        let style = if backlog > 50 { BUSY } else { QUIET };
        first.push(Span::styled(format!("; waiting here: {backlog} of {}", status.last_sequence), style));
    }
    if cloud.gap_open {
        first.push(Span::styled("  gap, replay asked for", BUSY));
    }
    let mut lines = vec![Line::from(first)];
    let alarms = scene.status.as_ref().map_or(&[][..], |status| &status.alarms);
    // Half for alarms, half for news, whatever there is of either.
    let space = usize::from(area.height).saturating_sub(3);
    for alarm in alarms.iter().take(space.div_ceil(2)) {
        let style = if alarm.severity == Severity::Warning { BUSY } else { BAD };
        lines.push(Line::styled(clipped(&format!(" ! {alarm}"), room), style));
    }
    if alarms.is_empty() {
        lines.push(Line::styled(" no alarm", QUIET));
    }
    let space = usize::from(area.height).saturating_sub(2 + lines.len());
    let skip = scene.news.len().saturating_sub(space);
    lines.extend(scene.news.iter().skip(skip).map(|news| Line::styled(clipped(&format!(" {news}"), room), QUIET)));
    lines
}

fn key_line(scene: &Scene) -> Line<'static> {
    let verb = |part: &Part| if *part == Part::Up { "unplug" } else { "plug in" };
    let unplugged = scene.stations.iter().any(|station| station.id == scene.next_station && !station.plugged);
    let keys = [
        ("b", format!("{} broker", verb(&scene.broker))),
        ("m", format!("{} meter", verb(&scene.meter))),
        ("c", "kill -9 controller".to_owned()),
        ("s", format!("{} station {}", if unplugged { "plug in" } else { "unplug" }, scene.next_station)),
        ("q", "quit".to_owned()),
    ];
    Line::from(
        keys.into_iter()
            .flat_map(|(key, what)| [Span::from(format!(" {key} ")).reversed(), Span::from(format!(" {what}  "))])
            .collect::<Vec<_>>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::scene::{CloudTruth, StationTruth};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use siteward::engine::model::alarm::{Alarm, AlarmKey, AlarmKind};
    use siteward::engine::model::status::{ChargerStatus, CircuitStatus, EvseStatus, SiteStatus};
    use siteward::engine::time::Mono;
    use siteward::engine::units::PerPhase;

    fn scene() -> Scene {
        let mut grid = CircuitRecord::new("grid", Current::from_a(100));
        grid.sample(PerPhase::new(Current::from_a(50), Current::from_a(101), Current::from_a(-4)), Mono::START);
        let evse = EvseStatus {
            evse: 1,
            status: Some("Charging".to_owned()),
            offered_a: Some(14.5),
            explanation: "14.5 A: circuit garage has 63 A on L1, of which 14.5 A are left for it".to_owned(),
            ..EvseStatus::default()
        };
        let status = SiteStatus {
            circuits: vec![CircuitStatus {
                id: "grid".to_owned(),
                limit_a: [100.0; 3],
                background_source: "meter".to_owned(),
                ..CircuitStatus::default()
            }],
            chargers: vec![ChargerStatus {
                id: "G1".to_owned(),
                connected: true,
                evses: vec![evse],
                ..ChargerStatus::default()
            }],
            alarms: vec![Alarm {
                key: AlarmKey::new(AlarmKind::MeterLost, "main"),
                severity: Severity::Error,
                message: "Meter main gives no reading.".to_owned(),
                remedy: "Check its cable.".to_owned(),
            }],
            ..SiteStatus::default()
        };
        Scene {
            seconds: 65,
            time_of_day: (13, 5),
            circuits: vec![
                grid,
                CircuitRecord::new("garage", Current::from_a(63)),
                CircuitRecord::new("yard", Current::from_a(40)),
            ],
            building: PerPhase::splat(Current::from_a(20)),
            pv: PerPhase::splat(Current::from_a(5)),
            stations: STATIONS
                .iter()
                .map(|plan| StationTruth {
                    id: plan.id,
                    plugged: plan.id != "Y3",
                    current: PerPhase::splat(Current::ZERO),
                    soc_percent: Some(40),
                })
                .collect(),
            status: Some(status),
            broker: Part::Up,
            meter: Part::Away("unplugged".to_owned()),
            controller: Part::Up,
            restarts: 1,
            cloud: CloudTruth::default(),
            next_station: "Y3",
            news: vec!["G1: a car arrives".to_owned()],
        }
    }

    fn drawn(width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &scene())).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_fits_into_100_by_30() {
        let text = drawn(100, 30);
        for part in [
            "grid",
            "garage",
            "yard",
            "101.0 / 100 A",
            "14.5 A",
            "circuit garage has",
            "Meter main gives",
            "kill -9",
            "plug in station Y3",
            "G1: a car arrives",
            "q  quit",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_small_terminal_is_told_so() {
        assert!(drawn(80, 24).contains("needs 100 x 30"));
    }
}
