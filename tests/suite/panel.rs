//! The panel of a run on a terminal, seen through a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::Folder;
use crate::support::inputs::{MODEL, RUN};

const ROWS: u16 = 24;
/// Longest wait for a text on the screen.
const PATIENCE: Duration = Duration::from_secs(120);

/// A command on a terminal of its own, and what it shows.
struct Terminal {
    child: Child,
    control: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts the command with a controlling terminal of this width.
    fn start(folder: &Folder, arguments: &[&str], columns: u16) -> Self {
        let control = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&control).unwrap();
        unlockpt(&control).unwrap();
        tcsetwinsize(&control, size(columns)).unwrap();
        let name = ptsname(&control, Vec::new()).unwrap();
        let user = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let end = || Stdio::from(user.try_clone().unwrap());
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_dip")]).args(arguments);
        command.current_dir(folder.path("")).env("TERM", "xterm-256color");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let control = File::from(control);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, columns, 200)));
        let (mut output, shown) = (control.try_clone().unwrap(), screen.clone());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The terminal fails to read when its last user has ended.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { child, control, screen }
    }

    fn text(&self) -> String {
        let parser = self.screen.lock().unwrap();
        let (_, columns) = parser.screen().size();
        let rows = parser.screen().rows(0, columns).map(|row| row.trim_end().to_owned());
        rows.collect::<Vec<_>>().join("\n")
    }

    /// Waits until all these texts are on the screen at once.
    fn wait_for(&self, parts: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let text = self.text();
            if parts.iter().all(|part| text.contains(part)) {
                return text;
            }
            assert!(start.elapsed() < PATIENCE, "no {parts:?} in\n{text}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn resize(&self, columns: u16) {
        self.screen.lock().unwrap().screen_mut().set_size(ROWS, columns);
        tcsetwinsize(&self.control, size(columns)).unwrap();
    }
}

fn size(columns: u16) -> Winsize {
    Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The rows that begin with `part`.
fn count(text: &str, part: &str) -> usize {
    text.lines().filter(|row| row.starts_with(part)).count()
}

/// The first words of the lines of the panel.
const PANEL: [&str; 4] = ["loss    ", "speed   ", "plan    ", "memory  "];

#[test]
fn a_terminal_shows_a_panel_follows_its_size_and_is_restored_by_ctrl_c() {
    let folder = Folder::of_run(MODEL, &RUN.replace("iterations = 40", "iterations = 100_000"));
    let mut terminal = Terminal::start(&folder, &["train", "run.toml"], 100);
    let figures = ["/100000", " left", "tokens/s", "bubbles", "predicted", "measured", "held-out"];
    let text = terminal.wait_for(&[&PANEL[..], &figures].concat());
    for part in PANEL {
        assert_eq!(count(&text, part), 1, "the panel is drawn once:\n{text}");
    }
    terminal.wait_for(&["checkpoint out/checkpoint-00000010"]);
    terminal.resize(60);
    // The screen was cleared and drawn anew; later lines come above the panel.
    let text = terminal.wait_for(&[&PANEL[..], &["checkpoint-00000030"]].concat());
    for part in PANEL {
        assert_eq!(count(&text, part), 1, "one panel after a resize:\n{text}");
    }
    assert!(text.contains("bubbles"), "60 columns have room for the figures:\n{text}");
    terminal.control.write_all(b"\x03").unwrap();
    assert_eq!(terminal.child.wait().unwrap().code(), Some(130));
    // The terminal's own ^C moves the panel by a row, so that its first row may stay; the others are gone.
    let text = terminal.wait_for(&["stopped after iteration", "continue with --resume"]);
    for part in ["speed   ", "plan    "] {
        assert_eq!(count(&text, part), 0, "the panel is gone:\n{text}");
    }
    assert!(!terminal.screen.lock().unwrap().screen().hide_cursor());
    let modes = tcgetattr(&terminal.control).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
}
