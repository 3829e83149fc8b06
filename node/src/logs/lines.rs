//! One line of a CRI log, and what a reader wants of it.

use coracle_link::protocol::LogOptions;

/// Turns stored lines into output.
pub struct Filter {
    timestamps: bool,
    since: Option<jiff::Timestamp>,
    left: Option<u64>,
    /// The only one that is wanted; all if empty.
    stream: String,
    /// The last line was a part: its continuation gets no timestamp of its own.
    partial: bool,
}

impl Filter {
    /// As asked for.
    pub fn new(options: &LogOptions) -> Self {
        let since_time = options.since_time.as_deref().and_then(|t| t.parse().ok());
        let ago = options.since_seconds.and_then(|s| {
            let now = jiff::Timestamp::from_millisecond(crate::pods::time::Time::now().0).ok()?;
            now.checked_sub(jiff::SignedDuration::from_secs(s)).ok()
        });
        Self {
            timestamps: options.timestamps,
            since: since_time.or(ago),
            left: options.limit_bytes.map(|n| u64::try_from(n).unwrap_or(0)),
            stream: options.stream.clone(),
            partial: false,
        }
    }

    /// The limit is reached.
    pub fn full(&self) -> bool {
        self.left == Some(0)
    }

    /// `line` as stored, without its newline.
    pub fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (Some(time), Some(stream), Some(tag), Some(content)) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            // Not CRI's format: a line that a crash cut short.
            return;
        };
        if !self.stream.is_empty() && stream != self.stream.as_bytes() {
            return;
        }
        if let Some(since) = self.since {
            let at = std::str::from_utf8(time).ok().and_then(|t| t.parse::<jiff::Timestamp>().ok());
            if at.is_none_or(|at| at < since) {
                return;
            }
        }
        if self.timestamps && !self.partial {
            self.push(time, out);
            self.push(b" ", out);
        }
        self.push(content, out);
        // Tags are a list; the first says whether the line goes on.
        self.partial = tag.split(|b| *b == b':').next() == Some(b"P");
        if !self.partial {
            self.push(b"\n", out);
        }
    }

    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let n = match &mut self.left {
            None => bytes.len(),
            Some(left) => {
                let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                n
            }
        };
        out.extend_from_slice(bytes.get(..n).unwrap_or_default());
    }
}
