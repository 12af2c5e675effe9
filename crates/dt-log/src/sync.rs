//! The locks, channels and threads of the concurrent code that is tested in many schedules: parking_lot's, tokio's and the
//! standard library's. In unit tests with the feature `_shuttle` they are shuttle's, which runs all threads on one,
//! switches between them at each of these operations, and tries thousands of schedules: `cargo test -p dt-log -p dt-server
//! --lib --features dt-log/_shuttle,dt-server/_shuttle schedules`.

#[cfg(not(feature = "_shuttle"))]
pub use self::usual::*;
#[cfg(feature = "_shuttle")]
pub use self::with_shuttle::*;

#[cfg(not(feature = "_shuttle"))]
mod usual {
    pub use parking_lot::{Condvar, Mutex, MutexGuard};
    pub use std::sync::atomic;
    pub use std::thread;
    pub use tokio::sync::oneshot;
}

/// The part of the locks, channels and threads that the code under test uses, implemented with shuttle.
#[cfg(feature = "_shuttle")]
mod with_shuttle {
    #![allow(clippy::expect_used, reason = "tests may fail loudly")]

    use std::ops::{Deref, DerefMut};
    use std::time::Instant;

    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    pub use shuttle::sync::atomic;
    pub use shuttle::thread;
    use shuttle::{Config, Runner};

    /// Runs a test in `default` schedules, or in `DT_RECEIVER_TEST_SCHEDULES`: half of them random, half with few switches
    /// between threads, at random points (PCT). A failure prints its schedule, for `shuttle::replay`.
    pub fn in_many_orders(default: usize, test: impl Fn() + Clone + Send + Sync + 'static) {
        let setting = std::env::var("DT_RECEIVER_TEST_SCHEDULES").ok();
        let orders = setting.map_or(default, |text| text.parse().expect("a number"));
        let mut config = Config::new();
        // SQLite needs more than the usual 32 KiB.
        config.stack_size = 1 << 20;
        Runner::new(RandomScheduler::new(orders.div_ceil(2)), config.clone()).run(test.clone());
        Runner::new(PctScheduler::new(3, orders.div_ceil(2)), config).run(test);
    }

    #[derive(Debug, Default)]
    pub struct Mutex<T>(shuttle::sync::Mutex<T>);

    /// A guard of a locked mutex. The inner value is `None` only while its thread waits.
    #[derive(Debug)]
    pub struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            // A thread that panicked with the lock has failed the test.
            MutexGuard(Some(self.0.lock().expect("no panic")))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("it does not wait")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("it does not wait")
        }
    }

    #[derive(Debug, Default)]
    pub struct Condvar(shuttle::sync::Condvar);

    /// The result of a wait, which never times out in these tests.
    #[derive(Debug)]
    pub struct InTime;

    impl InTime {
        pub const fn timed_out(&self) -> bool {
            false
        }
    }

    impl Condvar {
        pub fn new() -> Self {
            Self::default()
        }

        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let held = guard.0.take().expect("it does not wait yet");
            guard.0 = Some(self.0.wait(held).expect("no panic"));
        }

        /// Waits without a timeout: a missing wake-up is a deadlock that fails the test, not a delay.
        pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _until: Instant) -> InTime {
            self.wait(guard);
            InTime
        }

        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    /// tokio's oneshot channel, with a blocking wait that shuttle controls.
    pub mod oneshot {
        use std::pin::Pin;
        use std::task::{Context, Poll};

        pub use tokio::sync::oneshot::Sender;
        use tokio::sync::oneshot::error::RecvError;

        #[derive(Debug)]
        pub struct Receiver<T>(tokio::sync::oneshot::Receiver<T>);

        pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            (sender, Receiver(receiver))
        }

        impl<T> Receiver<T> {
            pub fn blocking_recv(self) -> Result<T, RecvError> {
                shuttle::future::block_on(self.0)
            }
        }

        impl<T> Future for Receiver<T> {
            type Output = Result<T, RecvError>;

            fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
                Pin::new(&mut self.0).poll(cx)
            }
        }
    }
}
