//! What DNS may answer, or not, by a server that says what a test writes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use mainstay::{
    Ratio,
    backoff::Backoff,
    clock,
    resolve::{self, Dns, DnsOptions, Resolve as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

use super::{
    daemon::free,
    suite::{Seen, Watching},
};

/// What is said to a question over UDP, or over TCP if that is true; nothing is silence.
type Script = dyn Fn(&Name, RecordType, bool) -> Option<Message> + Send + Sync;

struct Scripted {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Scripted {
    async fn start(
        script: impl Fn(&Name, RecordType, bool) -> Option<Message> + Send + Sync + 'static,
    ) -> Self {
        let address = free();
        let (script, asked): (Arc<Script>, _) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
        let (udp, tcp) = (UdpSocket::bind(address), TcpListener::bind(address));
        let (udp, tcp) = (Arc::new(udp.await.unwrap()), tcp.await.unwrap());
        let (says, counts) = (script.clone(), asked.clone());
        tokio::spawn(async move {
            let mut question = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut question).await {
                counts.fetch_add(1, SeqCst);
                if let Some(answer) = answer(&question[..length], &*says, false) {
                    let _ = udp.send_to(&answer, from).await;
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let script = script.clone();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut question = vec![0; length.into()];
                        stream.read_exact(&mut question).await?;
                        if let Some(answer) = answer(&question, &*script, true) {
                            stream.write_u16(answer.len() as u16).await?;
                            stream.write_all(&answer).await?;
                        }
                    }
                    std::io::Result::Ok(())
                });
            }
        });
        Self { address, asked }
    }

    fn options(&self) -> DnsOptions {
        DnsOptions::default()
            .servers([self.address])
            .jitter(Ratio::ZERO)
            .floor(Duration::from_millis(100))
            .timeout(Duration::from_millis(300))
            .backoff(Backoff::exponential(Duration::from_millis(200)).cap(Duration::from_secs(1)))
    }

    fn resolve(&self, name: &str) -> Dns {
        resolve::dns(name).options(self.options())
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

fn answer(question: &[u8], script: &Script, tcp: bool) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?.clone();
    let mut answer = script(query.name(), query.query_type(), tcp)?;
    answer.metadata.id = question.metadata.id;
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.add_query(query);
    answer.to_vec().ok()
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn says(records: impl IntoIterator<Item = Record>) -> Option<Message> {
    let mut message = Message::query();
    message.add_answers(records);
    Some(message)
}

fn code(code: ResponseCode) -> Option<Message> {
    let mut message = Message::query();
    message.metadata.response_code = code;
    Some(message)
}

/// That there is nothing, for so many seconds.
fn nothing(code: ResponseCode, seconds: u32) -> Option<Message> {
    let mut message = Message::query();
    message.metadata.response_code = code;
    let soa = rdata::SOA::new(name("ns.internal."), name("root.internal."), 1, 60, 60, 600, seconds);
    message.add_authorities([Record::from_rdata(name("internal."), seconds, RData::SOA(soa))]);
    Some(message)
}

fn a(owner: &Name, ttl: u32, last: u8) -> Record {
    Record::from_rdata(owner.clone(), ttl, RData::A(rdata::A::new(127, 9, 9, last)))
}

fn set(last: impl IntoIterator<Item = u8>) -> Vec<SocketAddr> {
    last.into_iter().map(|last| SocketAddr::from(([127, 9, 9, last], 80))).collect()
}

const SOON: Duration = Duration::from_secs(5);

async fn first(dns: Dns) -> Seen {
    Watching::start(Box::new(dns)).until("a first word", SOON, |seen| seen.told > 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_asked_for_again_when_its_time_is_over_and_not_before() {
    let server = Scripted::start(|owner, kind, _| match kind {
        RecordType::A => says([a(owner, 1, 1)]),
        _ => nothing(ResponseCode::NoError, 60),
    })
    .await;
    let start = clock::now();
    let mut watching = Watching::start(Box::new(server.resolve("users.internal:80")));
    watching.until("three answers", SOON, |seen| seen.told == 3).await;
    let took = clock::now().saturating_duration_since(start);
    assert!((1.9..3.5).contains(&took.as_secs_f64()), "{took:?}");
    // Of the AAAA that is not there the SOA says that it will not be for a minute.
    assert_eq!(server.asked(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_exist_is_absent_and_one_without_addresses_is_empty() {
    let server = Scripted::start(|owner, _, _| {
        let exists = owner.to_ascii().starts_with("bare");
        nothing(if exists { ResponseCode::NoError } else { ResponseCode::NXDomain }, 60)
    })
    .await;
    let absent = first(server.resolve("users.internal:80")).await;
    let empty = first(server.resolve("bare.internal:80")).await;
    assert!(absent.gone && empty.gone && absent.failed.is_none() && empty.failed.is_none());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.asked(), 4, "it holds for a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_cannot_say_takes_nothing_away() {
    for failure in [ResponseCode::ServFail, ResponseCode::Refused] {
        let asked = AtomicUsize::new(0);
        let server = Scripted::start(move |owner, kind, _| match (kind, asked.fetch_add(1, SeqCst)) {
            (RecordType::A, 0..2) => says([a(owner, 0, 1)]),
            (_, 0..2) => nothing(ResponseCode::NoError, 0),
            _ => code(failure),
        })
        .await;
        let mut watching = Watching::start(Box::new(server.resolve("users.internal:80")));
        watching.until_set(&set([1]), SOON).await;
        let seen = watching.until("a failure", SOON, |seen| seen.failed.is_some()).await;
        assert!(!seen.gone, "{failure}");
        assert!(seen.failed.unwrap().contains("users.internal"), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_that_cannot_be_looked_up_does_not_hide_the_other() {
    let server = Scripted::start(|owner, kind, _| match kind {
        RecordType::A => says([a(owner, 0, 1), a(owner, 0, 2)]),
        _ => code(ResponseCode::ServFail),
    })
    .await;
    let mut watching = Watching::start(Box::new(server.resolve("users.internal:80")));
    watching.until_set(&set([1, 2]), SOON).await;
    watching.until("the trouble beside it", SOON, |seen| seen.failed.is_some() && seen.set.is_some()).await;
    let server = Scripted::start(|_, kind, _| match kind {
        RecordType::A => code(ResponseCode::ServFail),
        _ => nothing(ResponseCode::NoError, 60),
    })
    .await;
    let seen = first(server.resolve("users.internal:80")).await;
    assert!(seen.failed.is_some(), "that there is none of the other says nothing of this one: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_long_or_never_comes_is_asked_for_over_tcp() {
    for silent in [false, true] {
        let server = Scripted::start(move |owner, kind, tcp| match (kind, tcp) {
            (RecordType::A, true) => says((1..=100).map(|last| a(owner, 9, last))),
            (RecordType::A, false) if silent => None,
            (RecordType::A, false) => {
                let mut short = says([a(owner, 9, 1)])?;
                short.metadata.truncation = true;
                Some(short)
            }
            _ => nothing(ResponseCode::NoError, 60),
        })
        .await;
        let seen = first(server.resolve("users.internal:80")).await;
        assert_eq!(seen.set.map(|set| set.len()), Some(100), "silent: {silent}, {:?}", seen.failed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_have_their_ports_priorities_and_weights_from_their_records() {
    let server = Scripted::start(|owner, kind, _| match (owner.to_ascii().as_str(), kind) {
        ("_users._tcp.internal.", RecordType::SRV) => {
            let srv = |priority, weight, port, target: &str| {
                let data = rdata::SRV::new(priority, weight, port, name(target));
                Record::from_rdata(owner.clone(), 60, RData::SRV(data))
            };
            let mut answer = says([
                srv(0, 30, 8001, "one.internal."),
                srv(0, 10, 8002, "two.internal."),
                srv(9, 0, 8003, "three.internal."),
            ])?;
            answer.add_additionals([a(&name("one.internal."), 60, 1)]);
            Some(answer)
        }
        ("two.internal.", RecordType::A) => says([a(owner, 60, 2), a(owner, 60, 22)]),
        ("three.internal.", RecordType::A) => code(ResponseCode::ServFail),
        _ => nothing(ResponseCode::NoError, 60),
    })
    .await;
    let mut dns = resolve::srv("_users._tcp.internal").options(server.options());
    let told = std::future::poll_fn(|cx| dns.poll_next(cx)).await;
    let Some(resolve::Resolution::Bound(set)) = told else { panic!("{told:?}") };
    let mut told: Vec<_> = set
        .iter()
        .map(|endpoint| (endpoint.address().to_string(), endpoint.weight(), endpoint.priority()))
        .collect();
    told.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [("127.9.9.1:8001", 30.0), ("127.9.9.22:8002", 5.0), ("127.9.9.2:8002", 5.0)];
    let expected = expected.map(|(address, weight)| (address.to_owned(), weight, 0));
    assert_eq!(told, expected, "what was sent along is not asked for; what cannot be looked up is left out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_name_is_tried_in_the_search_domains() {
    let server = Scripted::start(|owner, kind, _| match (owner.to_ascii().as_str(), kind) {
        ("users.prod.internal.", RecordType::A) => says([a(owner, 60, 1)]),
        ("users.prod.internal.", _) => nothing(ResponseCode::NoError, 60),
        _ => nothing(ResponseCode::NXDomain, 60),
    })
    .await;
    let options = server.options().search(["test.internal", "prod.internal"]);
    let seen = first(resolve::dns("users:80").options(options)).await;
    assert_eq!(seen.set, Some(set([1]).into_iter().collect()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_ask_as_one() {
    let server = Scripted::start(|owner, kind, _| match kind {
        RecordType::A => says([a(owner, 2, 1)]),
        _ => nothing(ResponseCode::NoError, 2),
    })
    .await;
    let options = server.options().jitter(Ratio::percent::<10>());
    let start = || Watching::start(Box::new(resolve::dns("users.internal:80").options(options.clone())));
    let mut clients: Vec<Watching> = (0..100).map(|_| start()).collect();
    for client in &mut clients {
        client.until_set(&set([1]), SOON).await;
    }
    assert_eq!(server.asked(), 2, "one question for each family");
    for client in &mut clients {
        client.until("asked again", SOON, |seen| seen.told >= 2).await;
    }
    assert!(server.asked() <= 8, "{} questions for {} answers", server.asked(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_dead_are_not_stormed() {
    let server = Scripted::start(|_, _, _| None).await;
    let start = || {
        let mut options = server.options().attempts(1);
        options.backoff = DnsOptions::default().backoff;
        Watching::start(Box::new(resolve::dns("users.internal:80").options(options)))
    };
    let mut clients: Vec<Watching> = (0..100).map(|_| start()).collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    for client in &mut clients {
        client.until("trouble", SOON, |seen| seen.failed.is_some()).await;
    }
    // Each would have asked some four times by now, for two families.
    assert!(server.asked() <= 100, "{} questions in five seconds", server.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_serves_all_clients_for_a_second() {
    let server = Scripted::start(|_, _, _| code(ResponseCode::ServFail)).await;
    let start = || {
        let mut options = server.options().attempts(1);
        options.backoff = DnsOptions::default().backoff;
        Watching::start(Box::new(resolve::dns("users.internal:80").options(options)))
    };
    let mut clients: Vec<Watching> = (0..100).map(|_| start()).collect();
    tokio::time::sleep(Duration::from_secs(4)).await;
    for client in &mut clients {
        client.until("trouble", SOON, |seen| seen.failed.is_some()).await;
    }
    // Two families, at most once a second.
    assert!(server.asked() <= 12, "{} questions in four seconds", server.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_cannot_say_another_is_asked_and_who_could_not_is_named() {
    let sick = Scripted::start(|_, _, _| code(ResponseCode::ServFail)).await;
    let well = Scripted::start(|owner, kind, _| match kind {
        RecordType::A => says([a(owner, 60, 1)]),
        _ => nothing(ResponseCode::NoError, 60),
    })
    .await;
    let options = sick.options().servers([sick.address, well.address]);
    let seen = first(resolve::dns("users.internal:80").options(options)).await;
    assert_eq!(seen.set, Some(set([1]).into_iter().collect()), "{:?}", seen.failed);
    let seen = first(sick.resolve("others.internal:80")).await;
    let told = seen.failed.unwrap();
    assert!(told.contains(&sick.address.to_string()) && told.contains("others.internal"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_in_a_circle_are_trouble_and_not_an_empty_set() {
    let server = Scripted::start(|owner, _, _| {
        let other = if owner.to_ascii().starts_with("one") { "two.internal." } else { "one.internal." };
        says([Record::from_rdata(owner.clone(), 60, RData::CNAME(rdata::CNAME(name(other))))])
    })
    .await;
    let seen = first(server.resolve("one.internal:80")).await;
    assert!(seen.failed.is_some() && !seen.gone, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_look_up_is_made_once_per_floor() {
    let server = Scripted::start(|owner, kind, _| match kind {
        RecordType::A => says([a(owner, 60, 1)]),
        _ => nothing(ResponseCode::NoError, 60),
    })
    .await;
    let mut dns =
        resolve::dns("users.internal:80").options(server.options().floor(Duration::from_millis(500)));
    std::future::poll_fn(|cx| dns.poll_next(cx)).await;
    let start = clock::now();
    for expected in [4, 6] {
        for _ in 0..100 {
            dns.refresh();
        }
        std::future::poll_fn(|cx| dns.poll_next(cx)).await;
        assert_eq!(server.asked(), expected);
    }
    assert!(clock::now() - start >= Duration::from_millis(990));
}

#[cfg(feature = "tonic")]
#[tokio::test(flavor = "multi_thread")]
async fn a_service_config_is_given_when_it_changes_where_that_is_asked() {
    use std::sync::Mutex;
    let config = Arc::new(Mutex::new(r#"[{"serviceConfig": {"a": 1}}]"#.to_owned()));
    let served = config.clone();
    let server = Scripted::start(move |owner, kind, _| match (owner.to_ascii().as_str(), kind) {
        ("_grpc_config.users.internal.", RecordType::TXT) => {
            let text = format!("grpc_config={}", served.lock().unwrap());
            // What is long comes in several strings.
            let (one, other) = text.split_at(13);
            let data = rdata::TXT::new(vec![one.to_owned(), other.to_owned()]);
            says([Record::from_rdata(owner.clone(), 0, RData::TXT(data))])
        }
        (_, RecordType::A) => says([a(owner, 0, 1)]),
        _ => nothing(ResponseCode::NoError, 0),
    })
    .await;
    let given = Arc::new(Mutex::new(Vec::new()));
    let taker = given.clone();
    let configs = resolve::ServiceConfigs::new(move |json: Option<&str>| {
        taker.lock().unwrap().push(json.map(str::to_owned));
    });
    let mut watching =
        Watching::start(Box::new(server.resolve("users.internal:80").service_configs(configs)));
    for next in [r#"[{"serviceConfig": {"a": 2}}]"#, "{broken", "[]"] {
        let told = watching.seen().told;
        watching.until("a few more", SOON, |seen| seen.told > told + 3).await;
        *config.lock().unwrap() = next.to_owned();
    }
    let told = watching.seen().told;
    watching.until("a few more", SOON, |seen| seen.told > told + 3).await;
    let expected = [Some(r#"{"a":1}"#.to_owned()), Some(r#"{"a":2}"#.to_owned()), None];
    assert_eq!(*given.lock().unwrap(), expected);
}

#[tokio::test]
async fn names_and_servers_are_read_from_a_name() {
    for good in ["dns:///users.internal:80", "dns://127.0.0.1/users:80", "dns://[::1]:5353,10.0.0.1/users:80"]
    {
        assert!(resolve::name(good).validate().is_ok(), "{good}");
    }
    for bad in ["dns:///users.internal", "dns://ns.internal/users:80", "srv:///users:80", "srv:///"] {
        assert!(resolve::name(bad).validate().is_err(), "{bad}");
    }
    assert!(resolve::name("srv:///_users._tcp.internal").validate().is_ok());
    let bad = DnsOptions::default().attempts(0).floor(Duration::from_secs(900)).search(["a b"]);
    let told = resolve::dns("users:80").options(bad).validate().unwrap_err().to_string();
    for rule in ["dns.attempts = 0: 1 to 10", "dns.floor = 900s: at most cap (300s)", "dns.search = \"a b\""]
    {
        assert!(told.contains(rule), "{told}");
    }
}
