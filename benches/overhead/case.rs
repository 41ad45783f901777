//! One row of the benchmark: how its service is made, and how callers drive it.

use std::{fmt::Debug, hint::black_box, sync::Arc};

use futures::future::BoxFuture;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
};
use tower::{Service, ServiceExt as _};

/// The cell of the table a case is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) endpoints: usize,
    pub(crate) threads: usize,
    pub(crate) callers: usize,
}

/// A row: a name and a way to make its service for any number of endpoints.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The row of the rival it is held against.
    pub(crate) rival: Option<&'static str>,
    owned: bool,
    start: Box<dyn Fn(Shape) -> Box<dyn Running>>,
}

impl Case {
    /// A service that any number of callers share by cloning it. `build` is called within the runtime.
    pub(crate) fn shared<S, Req>(
        name: &'static str,
        request: fn(u64) -> Req,
        build: impl Fn(usize) -> S + 'static,
    ) -> Self
    where
        S: Service<Req, Error: Debug, Future: Send> + Clone + Send + 'static,
        Req: Send + 'static,
    {
        let start = move |shape: Shape| -> Box<dyn Running> {
            let drive = if shape.callers == 1 { through_borrow::<S, Req> } else { through_clones::<S, Req> };
            Box::new(Callers::start(shape, request, drive, || {
                let service = build(shape.endpoints);
                vec![service; shape.callers]
            }))
        };
        Self { name, rival: None, owned: false, start: Box::new(start) }
    }

    /// A service that cannot be shared: one caller owns it, on one thread. `build` is called within the runtime.
    pub(crate) fn owned<S, Req>(
        name: &'static str,
        request: fn(u64) -> Req,
        build: impl Fn(usize) -> S + 'static,
    ) -> Self
    where
        S: Service<Req, Error: Debug, Future: Send> + Send + 'static,
        Req: Send + 'static,
    {
        let start = move |shape: Shape| -> Box<dyn Running> {
            Box::new(Callers::start(shape, request, through_borrow::<S, Req>, || {
                vec![build(shape.endpoints)]
            }))
        };
        Self { name, rival: None, owned: true, start: Box::new(start) }
    }

    /// Holds the row against that of a rival.
    pub(crate) fn against(mut self, rival: &'static str) -> Self {
        self.rival = Some(rival);
        self
    }

    pub(crate) fn fits(&self, shape: Shape) -> bool {
        !self.owned || (shape.callers == 1 && shape.threads == 1)
    }

    /// A fresh runtime, service and callers: no round inherits the memory layout or the state of another.
    pub(crate) fn start(&self, shape: Shape) -> Box<dyn Running> {
        (self.start)(shape)
    }
}

/// A case that has been started.
pub(crate) trait Running {
    /// Every caller makes `calls` calls. `around` is given what makes them, and measures what it wants to; starting and
    /// ending the callers is no part of it.
    fn run(&mut self, calls: u64, around: &mut dyn FnMut(&mut dyn FnMut()));
}

type Drive<S, Req> = fn(S, fn(u64) -> Req, u64) -> BoxFuture<'static, S>;

struct Callers<S, Req> {
    // Dropped before the runtime that its tasks live on.
    services: Vec<S>,
    request: fn(u64) -> Req,
    drive: Drive<S, Req>,
    runtime: Runtime,
}

impl<S, Req> Callers<S, Req> {
    fn start(
        shape: Shape,
        request: fn(u64) -> Req,
        drive: Drive<S, Req>,
        build: impl FnOnce() -> Vec<S>,
    ) -> Self {
        let mut builder = match shape.threads {
            1 => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        if shape.threads > 1 {
            builder.worker_threads(shape.threads);
        }
        let runtime = builder.enable_time().build().expect("a runtime");
        let services = {
            let _entered = runtime.enter();
            build()
        };
        Self { services, request, drive, runtime }
    }
}

impl<S: Send + 'static, Req: 'static> Running for Callers<S, Req> {
    fn run(&mut self, calls: u64, around: &mut dyn FnMut(&mut dyn FnMut())) {
        let (start, end) = (Arc::new(Line::new()), Arc::new(Line::new()));
        let tasks: Vec<_> = self
            .services
            .drain(..)
            .map(|service| {
                let (start, end) = (Arc::clone(&start), Arc::clone(&end));
                let mut calls = (self.drive)(service, self.request, calls);
                self.runtime.spawn(async move {
                    start.wait().await;
                    let service = (&mut calls).await;
                    end.wait().await;
                    service
                })
            })
            .collect();
        self.runtime.block_on(start.all(tasks.len()));
        around(&mut || {
            start.release(tasks.len());
            self.runtime.block_on(end.all(tasks.len()));
        });
        end.release(tasks.len());
        for task in tasks {
            self.services.push(self.runtime.block_on(task).expect("a caller that ends"));
        }
    }
}

/// Where the callers line up, so that what is measured is their calls and nothing of their birth or death.
struct Line {
    here: Semaphore,
    go: Semaphore,
}

impl Line {
    fn new() -> Self {
        Self { here: Semaphore::new(0), go: Semaphore::new(0) }
    }

    async fn wait(&self) {
        self.here.add_permits(1);
        self.go.acquire().await.expect("never closed").forget();
    }

    async fn all(&self, callers: usize) {
        self.here.acquire_many(callers as u32).await.expect("never closed").forget();
    }

    fn release(&self, callers: usize) {
        self.go.add_permits(callers);
    }
}

/// The only caller: it keeps the service and readies it for each call.
fn through_borrow<S, Req>(mut service: S, request: fn(u64) -> Req, calls: u64) -> BoxFuture<'static, S>
where
    S: Service<Req, Error: Debug, Future: Send> + Send + 'static,
    Req: Send + 'static,
{
    Box::pin(async move {
        for call in 0..calls {
            let response = service.ready().await.expect("ready").call(request(call)).await;
            black_box(response.expect("a response"));
        }
        service
    })
}

/// One of many callers: every call has a clone of its own.
fn through_clones<S, Req>(service: S, request: fn(u64) -> Req, calls: u64) -> BoxFuture<'static, S>
where
    S: Service<Req, Error: Debug, Future: Send> + Clone + Send + 'static,
    Req: Send + 'static,
{
    Box::pin(async move {
        for call in 0..calls {
            let mut own = service.clone();
            let response = own.ready().await.expect("ready").call(request(call)).await;
            black_box(response.expect("a response"));
        }
        service
    })
}
