//! Prometheus' text format, version 0.0.4: the little of it that is written.

use std::fmt::{Display, Write};

/// The media type.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Text in the making: a family's head comes with its first sample.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
    last: &'static str,
}

impl Text {
    /// One sample. `kind` is `counter` or `gauge`; samples of one family come after each other.
    pub fn sample(&mut self, name: &'static str, kind: &str, help: &str, labels: &[(&str, &str)], value: impl Display) {
        // A String takes everything.
        if self.last != name {
            _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            self.last = name;
        }
        self.out.push_str(name);
        for (n, (key, value)) in labels.iter().enumerate() {
            _ = write!(self.out, "{}{key}=\"", if n == 0 { '{' } else { ',' });
            for character in value.chars() {
                match character {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    other => self.out.push(other),
                }
            }
            self.out.push('"');
        }
        _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// What was written.
    pub fn done(self) -> String {
        self.out
    }
}

/// Nanoseconds as seconds.
pub fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_one_head_and_labels_are_escaped() {
        let mut text = Text::default();
        text.sample("a_total", "counter", "What.", &[("x", "1\"\\\n"), ("y", "")], 1.5);
        text.sample("a_total", "counter", "What.", &[], 2);
        text.sample("b", "gauge", "That.", &[], 0);
        assert_eq!(
            text.done(),
            "# HELP a_total What.\n# TYPE a_total counter\na_total{x=\"1\\\"\\\\\\n\",y=\"\"} 1.5\na_total 2\n# HELP b That.\n# TYPE b gauge\nb 0\n"
        );
    }
}
