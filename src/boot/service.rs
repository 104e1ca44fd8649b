//! What the service manager is told: that duet serves, reloads, stops, and again and again that no shard is stuck.
//!
//! Runs on boot's thread. Without `NOTIFY_SOCKET` and `WATCHDOG_USEC` nothing is told to anybody. Bound: one [`Envelope::Ping`]
//! to each shard at a time. Not here: what is done about a stuck shard; the service manager ends the process.

use std::time::Duration;

use sd_notify::NotifyState::{self, Ready, Reloading, Status, Stopping, Watchdog};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::shard::Envelope;

/// Waits until every shard answers from its inbox, which it does once it accepts connections, and then says so.
///
/// # Errors
/// A shard has ended instead.
pub(super) async fn ready(senders: &[mpsc::Sender<Envelope>], status: &str) -> Result<(), String> {
    for (shard, sender) in senders.iter().enumerate() {
        if !answers(sender.clone()).await {
            return Err(format!("shard {shard} does not serve: the log says why"));
        }
    }
    tell(&[Ready, Status(status)]);
    Ok(())
}

/// Says that a reload has begun, and when: newer service managers wait for one that is younger than their request.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager cannot be told of a reload"),
    }
}

/// Says that the reload is over.
pub(super) fn reloaded(status: &str) {
    tell(&[Ready, Status(status)]);
}

/// Says that the stop has begun.
pub(super) fn stopping() {
    tell(&[Stopping, Status("stopping: calls are ended and stored, connections closed")]);
}

/// Feeds the watchdog, if there is one, as long as all shards answer.
pub(super) async fn watch(senders: &[mpsc::Sender<Envelope>]) {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else {
        return std::future::pending().await;
    };
    let told = |stuck: &[usize]| match stuck {
        [] => tell(&[Watchdog]),
        stuck => tracing::error!(shards = ?stuck, "shards do not answer: the watchdog is not fed"),
    };
    watch_every(senders, period, told).await;
}

/// Asks all shards several times in `period`, and tells each time which were stuck. They have half of the period to answer,
/// so that one that was merely late is waited for.
async fn watch_every(senders: &[mpsc::Sender<Envelope>], period: Duration, told: impl Fn(&[usize])) {
    loop {
        told(&stuck(senders, period / 2).await);
        sleep(period / 4).await;
    }
}

/// The shards that do not answer `within` that time, in order.
async fn stuck(senders: &[mpsc::Sender<Envelope>], within: Duration) -> Vec<usize> {
    let mut asked = JoinSet::new();
    for (shard, sender) in senders.iter().cloned().enumerate() {
        asked.spawn(async move { (shard, timeout(within, answers(sender)).await.unwrap_or(false)) });
    }
    let mut stuck: Vec<usize> =
        asked.join_all().await.into_iter().filter(|(_, answered)| !answered).map(|(shard, _)| shard).collect();
    stuck.sort_unstable();
    stuck
}

/// Whether the shard answers; false when it has ended.
async fn answers(shard: mpsc::Sender<Envelope>) -> bool {
    let (reply, answer) = oneshot::channel();
    shard.send(Envelope::Ping { reply }).await.is_ok() && answer.await.is_ok()
}

/// A service manager that does not listen is no reason not to serve.
fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as threads;
    use std::thread::JoinHandle;

    use futures_lite::future::or;

    use super::*;
    use crate::base::placement::Placement;
    use crate::runtime::{Kind, spawn_shard};
    use crate::shard::inboxes;

    const PERIOD: Duration = Duration::from_secs(2);
    const PATIENCE: Duration = Duration::from_secs(60);

    /// What a shard's thread does with the pings: answers each, after `blocked` has come to its end.
    fn shard(kind: Kind, mut inbox: mpsc::Receiver<Envelope>, blocked: threads::Receiver<()>) -> JoinHandle<()> {
        let serve = move || async move {
            while let Some(envelope) = inbox.recv().await {
                let _ = blocked.recv();
                if let Envelope::Ping { reply } = envelope {
                    let _ = reply.send(());
                }
            }
        };
        spawn_shard(kind, "watched".to_owned(), None, serve).unwrap()
    }

    fn block_on(future: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { timeout(PATIENCE, future).await.expect("in time") });
    }

    #[test]
    fn the_watchdog_starves_while_one_shard_is_blocked_and_is_fed_again_when_it_answers() {
        for kind in [Kind::Uring, Kind::Epoll] {
            let (senders, mut inboxes) = inboxes(Placement::new(2));
            let (free, never_blocked) = threads::channel();
            drop(free);
            let (release, blocked) = threads::channel();
            let second = shard(kind, inboxes.pop().unwrap(), blocked);
            let first = shard(kind, inboxes.pop().unwrap(), never_blocked);
            let (tell, mut rounds) = mpsc::unbounded_channel();
            let watch = watch_every(&senders, PERIOD, |stuck| tell.send(stuck.to_vec()).unwrap());
            let rule = async {
                assert_eq!(rounds.recv().await.unwrap(), [1], "blocked, on {kind}");
                assert_eq!(rounds.recv().await.unwrap(), [1], "still blocked, on {kind}");
                drop(release);
                while !rounds.recv().await.unwrap().is_empty() {}
            };
            block_on(or(watch, rule));
            drop(senders);
            first.join().unwrap();
            second.join().unwrap();
        }
    }

    #[test]
    fn a_shard_that_has_ended_is_not_ready_and_starves_the_watchdog() {
        let (senders, inboxes) = inboxes(Placement::new(2));
        drop(inboxes);
        block_on(async {
            assert_eq!(ready(&senders, "").await.unwrap_err(), "shard 0 does not serve: the log says why");
            assert_eq!(stuck(&senders, PERIOD).await, [0, 1]);
        });
    }
}
