//! The few helper threads for millisecond work: opening, allocating and unlinking files, packing and unpacking
//! batches, handshakes, password hashes. They own no state; what they are given they give back.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// How long a job may be expected to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Length {
    /// Milliseconds.
    Short,
    /// Giving back a large file's space: a second and more on some file systems. One at a time, so that nobody who
    /// waits for space or for a batch waits behind a deletion.
    Long,
}

#[derive(Default)]
struct Queue {
    short: VecDeque<Job>,
    long: VecDeque<Job>,
    long_runs: bool,
    closed: bool,
}

impl Queue {
    fn pop(&mut self) -> Option<(Job, Length)> {
        if let Some(job) = self.short.pop_front() {
            return Some((job, Length::Short));
        }
        if self.long_runs {
            return None;
        }
        let job = self.long.pop_front()?;
        self.long_runs = true;
        Some((job, Length::Long))
    }
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

    pub(crate) fn run(&self, length: Length, job: Job) {
        let mut queue = self.shared.queue.lock().expect("no code that can panic runs under this lock");
        match length {
            Length::Short => queue.short.push_back(job),
            Length::Long => queue.long.push_back(job),
        }
        drop(queue);
        self.shared.arrived.notify_one();
    }
}

impl Shared {
    fn work(&self) {
        while let Some((job, length)) = self.next() {
            // Jobs catch their own panics: one that does not must not take the thread with it.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            if length == Length::Long {
                self.queue.lock().expect("no code that can panic runs under this lock").long_runs = false;
            }
        }
    }

    fn next(&self) -> Option<(Job, Length)> {
        let mut queue = self.queue.lock().expect("no code that can panic runs under this lock");
        loop {
            if let Some(job) = queue.pop() {
                return Some(job);
            }
            // What is left of the long ones is the thread's that runs one.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_short_job_does_not_wait_behind_long_ones() {
        let helpers = Helpers::start(2).unwrap();
        let (done, finished) = mpsc::channel();
        let (open, opened) = mpsc::channel::<()>();
        let opened = Arc::new(Mutex::new(opened));
        for number in 0..3 {
            let (done, opened) = (done.clone(), opened.clone());
            let job = move || {
                opened.lock().unwrap().recv().unwrap();
                done.send(number).unwrap();
            };
            helpers.run(Length::Long, Box::new(job));
        }
        let short = done.clone();
        helpers.run(Length::Short, Box::new(move || short.send(9).unwrap()));
        assert_eq!(finished.recv().unwrap(), 9);
        (0..3).for_each(|_| open.send(()).unwrap());
        drop(helpers);
        drop(done);
        assert_eq!(finished.iter().collect::<Vec<_>>(), [0, 1, 2], "in order, and before the end");
    }
}
