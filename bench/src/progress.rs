//! What is going on, on one line of the terminal; on lines of their own where there is no terminal.

use std::io::{self, IsTerminal, Write};

use crate::clock::{Nanos, SECOND, now};

pub struct Progress {
    is_terminal: bool,
    began: Nanos,
    total: usize,
    done: usize,
    label: String,
}

impl Progress {
    /// `total` steps are to come.
    pub fn new(total: usize) -> Self {
        Self { is_terminal: io::stderr().is_terminal(), began: now(), total, done: 0, label: String::new() }
    }

    /// The next step begins.
    pub fn step(&mut self, label: String) {
        self.done += 1;
        self.label = label;
        self.show("");
    }

    /// What the step is at. Shown on a terminal only.
    pub fn at(&self, what: &str) {
        if self.is_terminal {
            self.show(what);
        }
    }

    fn show(&self, what: &str) {
        let seconds = (now() - self.began) / SECOND;
        let separator = if what.is_empty() { "" } else { ": " };
        let line = format!("[{}/{}, {seconds} s] {}{separator}{what}", self.done, self.total, self.label);
        let _ =
            if self.is_terminal { write!(io::stderr(), "\r\x1b[2K{line}") } else { writeln!(io::stderr(), "{line}") };
    }

    /// Leaves the line.
    pub fn end(&self) {
        if self.is_terminal {
            eprintln!();
        }
    }
}
