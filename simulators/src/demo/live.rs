//! The demo with a terminal.

use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::scene::Part;
use super::{Demo, STEP, view};

/// Keys that wait to be acted on; nobody types faster than 100 ms take.
const KEYS: usize = 16;

/// Shows the demo until somebody presses q.
///
/// # Errors
/// If the terminal cannot be used or the demo fails.
pub async fn show(demo: &mut Demo) -> Result<(), String> {
    // Installs a panic hook too, which gives the terminal back.
    let mut terminal = ratatui::try_init().map_err(|error| format!("the terminal cannot be used: {error}"))?;
    let mut keys = keys();
    let mut step = interval(STEP);
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let result = loop {
        tokio::select! {
            _ = step.tick() => {
                let drawn = demo.step().and_then(|()| {
                    let scene = demo.scene();
                    terminal.draw(|frame| view::draw(frame, &scene)).map(|_| ()).map_err(|error| error.to_string())
                });
                if let Err(error) = drawn {
                    break Err(error);
                }
            }
            key = keys.recv() => match key {
                Some('q') | None => break Ok(()),
                Some(key) => if let Err(error) = press(demo, key) {
                    break Err(error);
                }
            },
            _ = tokio::signal::ctrl_c() => break Ok(()),
        }
    };
    ratatui::restore();
    result
}

fn press(demo: &mut Demo, key: char) -> Result<(), String> {
    match key {
        'b' => {
            let present = demo.processes.broker() == Part::Up;
            demo.set_broker(!present)?;
        }
        'm' => {
            let present = demo.wires.meter() == Part::Up;
            demo.set_meter(!present);
        }
        'c' => demo.kill_controller(),
        's' => demo.toggle_next_station(),
        _ => {}
    }
    Ok(())
}

/// The keys pressed, read on a thread of its own that ends when nobody listens any more.
fn keys() -> mpsc::Receiver<char> {
    let (sender, receiver) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            if !event::poll(Duration::from_millis(200)).unwrap_or(false) {
                continue;
            }
            let key = match event::read() {
                Ok(Event::Key(key)) if key.kind == KeyEventKind::Press => match key.code {
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => 'q',
                    KeyCode::Char(key) => key.to_ascii_lowercase(),
                    KeyCode::Esc => 'q',
                    _ => continue,
                },
                Ok(_) => continue,
                Err(_) => 'q',
            };
            if sender.blocking_send(key).is_err() {
                break;
            }
        }
    });
    receiver
}
