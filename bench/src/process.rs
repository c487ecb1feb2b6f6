//! Brokers of our own: a `corelog` on a fresh folder for a run without `--bootstrap`, and this program's null broker.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::link::about;

const USUAL_BOOTSTRAP: &str = "127.0.0.1:9092";
const CONNECT_WAIT: Duration = Duration::from_millis(500);
const READY_WAIT: Duration = Duration::from_secs(30);
const STOP_WAIT: Duration = Duration::from_secs(30);
const STOP_POLL: Duration = Duration::from_millis(10);
const READY: &str = "ready: kafka ";
/// Comes before it where the broker was told to listen for this.
const READY_ADMIN: &str = "ready: admin ";

/// Where the load goes, and what must be ended after it.
pub struct Broker {
    pub bootstrap: String,
    /// Where a broker of our own tells its metrics.
    metrics: Option<String>,
    child: Option<Child>,
    /// Removed at the end.
    folder: Option<PathBuf>,
}

impl Broker {
    /// The broker that was named, one that listens at the usual place, or one of our own on a folder that has records.
    pub fn find_to_read(bootstrap: Option<&str>, data: Option<&Path>) -> io::Result<Broker> {
        if bootstrap.is_none() && data.is_none() && !Broker::listens() {
            let text = format!(
                "nothing listens on {USUAL_BOOTSTRAP}, and a broker of our own would have nothing to read; \
                 give --bootstrap HOST:PORT, or --data with the folder of a broker that is stopped"
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        Broker::find(bootstrap, data)
    }

    fn listens() -> bool {
        let usual: SocketAddr = USUAL_BOOTSTRAP.parse().expect("a constant address");
        TcpStream::connect_timeout(&usual, CONNECT_WAIT).is_ok()
    }

    /// The broker that was named, one that listens at the usual place, or one of our own.
    pub fn find(bootstrap: Option<&str>, data: Option<&Path>) -> io::Result<Broker> {
        if let Some(bootstrap) = bootstrap {
            return Ok(Broker::of_others(bootstrap));
        }
        if data.is_none() && Broker::listens() {
            eprintln!("bench: using the broker that listens on {USUAL_BOOTSTRAP}");
            return Ok(Broker::of_others(USUAL_BOOTSTRAP));
        }
        Broker::start(data)
    }

    fn of_others(bootstrap: &str) -> Broker {
        Broker { bootstrap: bootstrap.to_owned(), metrics: None, child: None, folder: None }
    }

    fn start(data: Option<&Path>) -> io::Result<Broker> {
        let program = env::current_exe()?.with_file_name("corelog");
        if !program.exists() {
            let text = format!(
                "nothing listens on {USUAL_BOOTSTRAP} and there is no {}; build the broker or give --bootstrap HOST:PORT",
                program.display()
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        let folder = data.is_none().then(fresh_folder).transpose()?;
        let kept_in = data.or(folder.as_deref()).expect("one of them is there");
        eprintln!(
            "bench: nothing listens on {USUAL_BOOTSTRAP}; starting {} on {}",
            program.display(),
            kept_in.display()
        );
        let mut command = Command::new(&program);
        command.arg("start").arg("--data").arg(kept_in).args(["--listen", "127.0.0.1:0"]);
        command.args(["--set", "admin.listen=127.0.0.1:0"]);
        let (child, ready) = spawn_until_ready(command)?;
        eprintln!("bench: it is ready on {}", ready.kafka);
        Ok(Broker { bootstrap: ready.kafka, metrics: ready.admin, child: Some(child), folder })
    }

    /// A null broker in a process of its own.
    pub fn null(partitions: usize) -> io::Result<Broker> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["null-broker", "--listen", "127.0.0.1:0", "--partitions", &partitions.to_string()]);
        let (child, ready) = spawn_until_ready(command)?;
        Ok(Broker { bootstrap: ready.kafka, metrics: None, child: Some(child), folder: None })
    }

    /// Where this broker's metrics are: as was `asked`, else those of a broker of our own.
    pub fn metrics(&self, asked: Option<&str>) -> Option<String> {
        asked.map(str::to_owned).or_else(|| self.metrics.clone())
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

/// Ends what was started and removes its folder.
impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            stop(child);
        }
        if let Some(folder) = self.folder.as_deref()
            && let Err(error) = fs::remove_dir_all(folder)
        {
            eprintln!("bench: {} stays behind: {error}", folder.display());
        }
    }
}

fn fresh_folder() -> io::Result<PathBuf> {
    let folder = env::temp_dir().join(format!("corelog-bench-{}", std::process::id()));
    fs::create_dir(&folder).map_err(|error| about(folder.display(), &error))?;
    Ok(folder)
}

/// Where a broker said it listens.
struct Ready {
    kafka: String,
    admin: Option<String>,
}

/// Starts it and waits for its line; what it says before is shown when it ends without.
fn spawn_until_ready(mut command: Command) -> io::Result<(Child, Ready)> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| about(command.get_program().display(), &error))?;
    let output = child.stdout.take().expect("it was asked for");
    let (found, ready) = mpsc::channel();
    thread::spawn(move || {
        // Reads on to the end, so that the pipe never fills.
        let mut admin = None;
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix(READY_ADMIN) {
                admin = Some(address.trim().to_owned());
            }
            if let Some(address) = line.strip_prefix(READY) {
                let ready = Ready { kafka: address.trim().to_owned(), admin: admin.take() };
                let _nobody_waits_any_more = found.send(ready);
            }
        }
    });
    match ready.recv_timeout(READY_WAIT) {
        Ok(ready) => Ok((child, ready)),
        Err(_) => {
            stop(&mut child);
            Err(io::Error::other("the broker did not get ready"))
        }
    }
}

/// SIGTERM, so that it flushes and ends in order; by force when it takes too long.
fn stop(child: &mut Child) {
    let asked = Command::new("kill").arg(child.id().to_string()).stderr(Stdio::null()).status();
    let give_up_at = Instant::now() + STOP_WAIT;
    while asked.as_ref().is_ok_and(|status| status.success()) && Instant::now() < give_up_at {
        match child.try_wait() {
            Ok(None) => thread::sleep(STOP_POLL),
            Ok(Some(_)) | Err(_) => return,
        }
    }
    if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
        eprintln!("bench: the broker could not be ended: {error}");
    }
}
