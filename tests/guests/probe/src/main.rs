//! A command whose first argument says what to do: the whole-system tests' eyes and hands inside a `wasi:cli` pod.

use std::{
    env,
    io::{BufRead, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    // One pod may ask for several things: commands are separated by `--`.
    for command in args.split(|arg| arg == "--") {
        let mut words = command.iter().map(String::as_str);
        if let Err(error) = run(words.next().unwrap_or("hello"), &words.collect::<Vec<_>>()) {
            println!("error: {error}");
            exit(1);
        }
    }
}

fn exit(code: u8) -> ! {
    wasip2::cli::exit::exit_with_code(code);
    unreachable!()
}

fn run(command: &str, words: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let word = |index: usize| words.get(index).copied().unwrap_or("");
    match command {
        "hello" => println!("hello from probe"),
        "args" => println!("args {words:?}"),
        "env" => println!("{}={}", word(0), env::var(word(0)).unwrap_or_else(|_| "<unset>".into())),
        "environment" => env::vars().for_each(|(key, value)| println!("{key}={value}")),
        "cat" => print!("{}", std::fs::read_to_string(word(0))?),
        "ls" => {
            let mut names: Vec<String> = std::fs::read_dir(word(0))?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            println!("{names:?}");
        }
        "write" => std::fs::write(word(0), words.get(1..).unwrap_or_default().join(" "))?,
        "exit" => exit(word(0).parse()?),
        "stderr" => eprintln!("{}", words.join(" ")),
        "sleep" => std::thread::sleep(Duration::from_millis(word(0).parse()?)),
        // `count 3 100`: three numbered lines, 100 ms apart; 0 counts for ever.
        "count" => {
            let (times, pause): (u64, u64) = (word(0).parse()?, word(1).parse()?);
            let mut line = 0;
            while times == 0 || line < times {
                line += 1;
                println!("line {line}");
                std::io::stdout().flush()?;
                std::thread::sleep(Duration::from_millis(pause));
            }
        }
        "loop" => loop {
            std::hint::black_box(0);
        },
        "allocate" => {
            let mebibytes: usize = word(0).parse()?;
            let block = vec![1u8; mebibytes << 20];
            println!("allocated {}", std::hint::black_box(&block).len() >> 20);
        }
        "abort" => std::process::abort(),
        // Serves lines back, with the address it is bound to first.
        "listen" => {
            let listener = TcpListener::bind(word(0))?;
            println!("listening on {}", listener.local_addr()?);
            for stream in listener.incoming() {
                let mut stream = stream?;
                writeln!(stream, "you are {}", stream.peer_addr()?.ip())?;
            }
        }
        "connect" => {
            let mut stream = TcpStream::connect(word(0))?;
            println!("connected from {}", stream.local_addr()?.ip());
            if let Some(text) = words.get(1) {
                writeln!(stream, "{text}")?;
            }
            let mut line = String::new();
            std::io::BufReader::new(stream).read_line(&mut line)?;
            print!("received {line}");
        }
        "udp" => {
            let socket = UdpSocket::bind(word(0))?;
            println!("bound to {}", socket.local_addr()?);
            socket.send_to(b"ping", word(1))?;
            let mut buffer = [0u8; 64];
            let (length, from) = socket.recv_from(&mut buffer)?;
            println!("received {} from {from}", String::from_utf8_lossy(&buffer[..length]));
        }
        "stdin" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            println!("stdin {:?}", text);
        }
        other => return Err(format!("probe does not know the command {other:?}").into()),
    }
    Ok(())
}
