//! Threads that pack chunks, while the one who writes goes on.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use caudal_store::Digest;
use sha2::{Digest as _, Sha256};

use super::codec::{Codec, Packed};

/// A chunk, packed, with the SHA-256 of its bytes; to be waited for.
pub(super) type Ticket = Receiver<io::Result<(Packed, Digest)>>;

struct Job {
    plain: Vec<u8>,
    reply: SyncSender<io::Result<(Packed, Digest)>>,
}

/// The threads; they end when it is dropped.
pub(super) struct Pool {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(super) fn new(codec: Codec, threads: usize) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(threads * 2);
        let queue = Arc::new(Mutex::new(queue));
        let start = |number| {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name(format!("archive-{number}")).spawn(move || work(codec, &queue))
        };
        let threads = (0..threads.max(1)).map(start).collect::<io::Result<_>>()?;
        Ok(Self { jobs: Some(jobs), threads })
    }

    /// Gives a chunk to be packed; waits while too many are waiting.
    pub(super) fn pack(&self, plain: Vec<u8>) -> Ticket {
        let (reply, ticket) = sync_channel(1);
        if let Some(jobs) = &self.jobs {
            // Where all threads are gone the ticket says so.
            let _ = jobs.send(Job { plain, reply });
        }
        ticket
    }
}

fn work(codec: Codec, queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { plain, reply }) = job else { return };
        let packed = codec.pack(&plain).map(|packed| {
            let sum = Sha256::digest(&packed.bytes).into();
            (packed, sum)
        });
        // Who asked may have given up.
        let _ = reply.send(packed);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
