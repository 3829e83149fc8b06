use super::*;
use crate::pods::views::ContainerView;
use async_trait::async_trait;
use std::{fs, io::Write, time::Duration};
use tokio::sync::mpsc;

struct Out(mpsc::UnboundedSender<Bytes>);

#[async_trait]
impl SendHalf for Out {
    async fn send(&mut self, frame: Bytes) -> Result<(), coracle_link::Error> {
        self.0.send(frame).map_err(|_| coracle_link::Error::Closed("gone".into()))
    }
    async fn finish(&mut self) -> Result<(), coracle_link::Error> {
        Ok(())
    }
}

struct Log {
    dir: tempfile::TempDir,
    views: Views,
}

impl Log {
    fn new() -> Self {
        let log = Self { dir: tempfile::tempdir().unwrap(), views: Views::default() };
        log.view(0, true);
        fs::create_dir_all(log.source(0).dir).unwrap();
        log
    }

    fn view(&self, attempt: u32, alive: bool) {
        self.set(attempt, alive, None);
    }

    fn set(&self, attempt: u32, alive: bool, waiting: Option<&str>) {
        let container = ContainerView {
            name: "c".into(),
            attempt,
            created: waiting.is_none(),
            previous: attempt.checked_sub(1),
            alive,
            over: false,
            waiting: waiting.map(str::to_owned),
            started: None,
            image: String::new(),
            memory_limit: None,
        };
        self.views.set(View {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            ip: None,
            containers: vec![container],
            start_time: String::new(),
            active: true,
            from_file: false,
        });
    }

    fn source(&self, attempt: u32) -> Source {
        Source { dir: self.dir.path().join("pods/u/logs/c"), container: "c".into(), attempt }
    }

    fn write(&self, file: &str, lines: &[(&str, &str, &str)]) {
        self.write_to("stdout", file, lines);
    }

    fn write_to(&self, stream: &str, file: &str, lines: &[(&str, &str, &str)]) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.source(0).dir.join(file)).unwrap();
        for (time, tag, text) in lines {
            writeln!(file, "2026-01-01T00:00:{time}.000000000Z {stream} {tag} {text}").unwrap();
        }
    }

    async fn read(&self, options: LogOptions) -> String {
        let (send, mut recv) = mpsc::unbounded_channel();
        let source = find(self.dir.path(), &self.views.get("u").unwrap(), "c", &options).unwrap();
        stream(source, options, self.views.clone(), "u".into(), &mut Out(send)).await.unwrap();
        let mut text = Vec::new();
        while let Ok(chunk) = recv.try_recv() {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).unwrap()
    }
}

#[tokio::test]
async fn options_choose_lines() {
    let log = Log::new();
    log.write("0.log.1", &[("01", "F", "one"), ("02", "F", "two")]);
    log.write("0.log", &[("03", "P", "thr"), ("03", "F", "ee"), ("04", "F", "four")]);
    let with = |change: fn(&mut LogOptions)| {
        let mut options = LogOptions::default();
        change(&mut options);
        options
    };
    assert_eq!(log.read(LogOptions::default()).await, "one\ntwo\nthree\nfour\n");
    assert_eq!(log.read(with(|o| o.tail_lines = Some(1))).await, "four\n");
    assert_eq!(log.read(with(|o| o.tail_lines = Some(4))).await, "two\nthree\nfour\n");
    assert_eq!(log.read(with(|o| o.tail_lines = Some(100))).await, "one\ntwo\nthree\nfour\n");
    assert_eq!(log.read(with(|o| o.tail_lines = Some(0))).await, "");
    assert_eq!(log.read(with(|o| o.limit_bytes = Some(6))).await, "one\ntw");
    assert_eq!(log.read(with(|o| o.since_time = Some("2026-01-01T00:00:04Z".into()))).await, "four\n");
    log.write_to("stderr", "0.log", &[("05", "F", "aside")]);
    assert_eq!(log.read(with(|o| o.stream = "stderr".into())).await, "aside\n");
    assert_eq!(log.read(with(|o| o.stream = "stdout".into())).await, "one\ntwo\nthree\nfour\n");
    let stamped = log.read(with(|o| o.timestamps = true)).await;
    assert!(stamped.contains("2026-01-01T00:00:03.000000000Z three\n"), "{stamped}");
}

#[tokio::test]
async fn previous_and_waiting_are_told_apart() {
    let log = Log::new();
    log.write("0.log", &[("01", "F", "first life")]);
    let previous = LogOptions { previous: true, ..LogOptions::default() };
    let view = log.views.get("u").unwrap();
    let error = find(log.dir.path(), &view, "c", &previous).unwrap_err();
    assert_eq!(error.message, "previous terminated container \"c\" in pod \"p\" not found");
    log.view(1, true);
    assert_eq!(log.read(previous).await, "first life\n");
    for (reason, words) in [
        ("PodInitializing", "PodInitializing"),
        ("CreateContainerError", "CreateContainerError"),
        ("ErrImagePull", "image can't be pulled"),
        ("ImagePullBackOff", "trying and failing to pull image"),
    ] {
        log.set(7, false, Some(reason));
        let error = find(log.dir.path(), &log.views.get("u").unwrap(), "c", &LogOptions::default()).unwrap_err();
        assert_eq!(error.message, format!("container \"c\" in pod \"p\" is waiting to start: {words}"));
    }
    let error = find(log.dir.path(), &view, "x", &LogOptions::default()).unwrap_err();
    assert_eq!(error.message, "container x is not valid for pod p");
}

#[tokio::test]
async fn following_goes_through_rotations_and_ends_with_the_container() {
    let log = Log::new();
    log.write("0.log", &[("01", "F", "a")]);
    let (send, mut recv) = mpsc::unbounded_channel();
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let (views, source) = (log.views.clone(), log.source(0));
    let task = tokio::spawn(async move { stream(source, options, views, "u".into(), &mut Out(send)).await });
    let mut text = String::new();
    let mut until = async |want: &str, text: &mut String| {
        while text.as_str() != want {
            let chunk = tokio::time::timeout(Duration::from_secs(10), recv.recv()).await.expect("in time").expect("open");
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    until("a\n", &mut text).await;
    log.write("0.log", &[("02", "F", "b")]);
    until("a\nb\n", &mut text).await;
    // Two rotations at once: nothing in between is lost.
    let dir = log.source(0).dir;
    log.write("0.log", &[("03", "F", "c")]);
    fs::rename(dir.join("0.log"), dir.join("0.log.2")).unwrap();
    log.write("0.log.1", &[("04", "F", "d")]);
    log.write("0.log", &[("05", "F", "e")]);
    until("a\nb\nc\nd\ne\n", &mut text).await;
    log.write("0.log", &[("06", "F", "last")]);
    log.view(0, false);
    until("a\nb\nc\nd\ne\nlast\n", &mut text).await;
    tokio::time::timeout(Duration::from_secs(10), task).await.expect("ends").unwrap().unwrap();
}
