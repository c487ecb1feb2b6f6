//! The few helper threads for millisecond work: opening, allocating and unlinking files, packing and unpacking
//! batches, handshakes, password hashes. They own no state; what they are given they give back.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

/// Shared by the cores of a runtime. Dropped, it finishes what is queued.
pub(crate) struct Helpers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    pub(crate) fn start(count: usize) -> io::Result<Arc<Helpers>> {
        assert!(count > 0);
        let shared: Arc<Shared> = Arc::default();
        let mut threads = Vec::new();
        for number in 0..count {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name(format!("helper-{number}"));
            threads.push(builder.spawn(move || shared.work())?);
        }
        Ok(Arc::new(Helpers { shared, threads }))
    }

    pub(crate) fn run(&self, job: Job) {
        let mut queue = self.shared.queue.lock().expect("no code that can panic runs under this lock");
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.arrived.notify_one();
    }
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.next() {
            // Jobs catch their own panics: one that does not must not take the thread with it.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock().expect("no code that can panic runs under this lock");
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.arrived.wait(queue).expect("no code that can panic runs under this lock");
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        if let Ok(mut queue) = self.shared.queue.lock() {
            queue.closed = true;
        }
        self.shared.arrived.notify_all();
        let me = std::thread::current().id();
        for thread in self.threads.drain(..).filter(|t| t.thread().id() != me) {
            // A helper catches the panics of its jobs, and has nothing else to say.
            let _ = thread.join();
        }
    }
}
