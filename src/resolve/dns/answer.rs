//! What an answer of DNS says.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{RData, Record},
    },
};

use crate::{Endpoint, error::Cause};

/// An answer to one question.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Records, those that the server sent along, and the time that all of them hold: the least of the chain's.
    Records { records: Arc<[Record]>, along: Arc<[Record]>, ttl: Duration },
    /// There are none. The SOA says for how long, if there was one.
    Nothing { absent: bool, ttl: Option<Duration> },
    /// Nobody knows.
    Failed(Cause),
}

/// One target of an SRV record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) priority: u16,
    pub(super) weight: u16,
}

impl Answer {
    /// What one server has said, or why it could not say.
    pub(super) fn of(answered: Result<(Vec<Record>, Vec<Record>), NetError>) -> Result<Self, String> {
        match answered {
            Ok((records, along)) => {
                let ttl = records.iter().map(|record| record.ttl).min().unwrap_or(0);
                let ttl = Duration::from_secs(ttl.into());
                Ok(Self::Records { records: records.into(), along: along.into(), ttl })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                let absent = none.response_code == ResponseCode::NXDomain;
                let ttl = none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into()));
                Ok(Self::Nothing { absent, ttl })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Err(none.response_code.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn failed(question: &str, why: &str) -> Self {
        Self::Failed(Arc::new(LookUpError { question: question.to_owned(), why: why.to_owned() }))
    }

    /// The addresses in it.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Records { records, .. } => records.iter().filter_map(address).collect(),
            _ => Vec::new(),
        }
    }

    /// The texts in it, each with all of its strings one after the other.
    #[cfg(feature = "tonic")]
    pub(super) fn texts(&self) -> Vec<Vec<u8>> {
        let Self::Records { records, .. } = self else { return Vec::new() };
        let text = |record: &Record| match &record.data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        };
        records.iter().filter_map(text).collect()
    }

    /// The targets in it. One that is the root says that the service is not to be had.
    pub(super) fn targets(&self) -> Vec<Target> {
        let Self::Records { records, .. } = self else { return Vec::new() };
        let target = |record: &Record| match &record.data {
            RData::SRV(srv) if !srv.target.is_root() => Some(Target {
                name: srv.target.to_ascii(),
                port: srv.port,
                priority: srv.priority,
                weight: srv.weight,
            }),
            _ => None,
        };
        records.iter().filter_map(target).collect()
    }

    /// The addresses of `name` that the server sent along, and how long they hold.
    pub(super) fn along(&self, name: &str) -> Option<(Vec<IpAddr>, Duration)> {
        let Self::Records { along, .. } = self else { return None };
        let of_name = along.iter().filter(|record| record.name.to_ascii().eq_ignore_ascii_case(name));
        let found: Vec<(IpAddr, u32)> =
            of_name.filter_map(|record| Some((address(record)?, record.ttl))).collect();
        let ttl = found.iter().map(|(_, ttl)| *ttl).min()?;
        Some((found.into_iter().map(|(address, _)| address).collect(), Duration::from_secs(ttl.into())))
    }
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

/// The endpoints of targets and their addresses.
///
/// A target's weight is shared by its addresses, so that one with many gets no more than it should. A weight of 0 is a
/// tenth of the least that is said beside others, which is a small chance, as RFC 2782 wants it; where no target of a
/// priority has a weight all are alike.
pub(super) fn endpoints(targets: &[(Target, Vec<IpAddr>)]) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for (target, addresses) in targets {
        let peers = targets.iter().filter(|(peer, _)| peer.priority == target.priority);
        let least = peers.map(|(peer, _)| peer.weight).filter(|weight| *weight > 0).min();
        let weight = match (target.weight, least) {
            (_, None) => 1.0,
            (0, Some(least)) => f64::from(least) / 10.0,
            (weight, Some(_)) => f64::from(weight),
        };
        for address in addresses {
            let endpoint = Endpoint::new(SocketAddr::new(*address, target.port))
                .with_priority(target.priority.into())
                .with_weight(weight / addresses.len() as f64)
                .with_metadata("dns.target", target.name.trim_end_matches('.'));
            endpoints.push(endpoint);
        }
    }
    endpoints
}

/// A question that nobody could answer.
#[derive(Debug, thiserror::Error)]
#[error("{question}: {why}")]
struct LookUpError {
    question: String,
    why: String,
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use hickory_resolver::proto::rr::{Name, rdata};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn a(owner: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(rdata::A::new(10, 0, 0, last)))
    }

    fn srv(priority: u16, weight: u16, target: &str) -> Record {
        let data = rdata::SRV::new(priority, weight, 8080, name(target));
        Record::from_rdata(name("_users._tcp.internal."), 60, RData::SRV(data))
    }

    #[test]
    fn an_answer_holds_as_long_as_the_shortest_of_its_chain() {
        let alias = rdata::CNAME(name("b.internal."));
        let alias = Record::from_rdata(name("a.internal."), 7, RData::CNAME(alias));
        let answer =
            Answer::of(Ok((vec![alias, a("b.internal.", 60, 1), a("b.internal.", 60, 2)], vec![]))).unwrap();
        let Answer::Records { ttl, .. } = &answer else { panic!("{answer:?}") };
        assert_eq!(ttl.as_secs(), 7);
        assert_eq!(answer.addresses().len(), 2);
    }

    #[test]
    fn a_service_that_is_not_to_be_had_has_no_target() {
        assert_eq!(Answer::of(Ok((vec![srv(0, 0, ".")], vec![]))).unwrap().targets(), []);
    }

    #[test]
    fn addresses_that_were_sent_along_are_found_by_their_name() {
        let along = vec![a("One.internal.", 30, 1), a("two.internal.", 9, 2), a("one.internal.", 20, 3)];
        let answer = Answer::of(Ok((vec![srv(0, 1, "one.internal.")], along))).unwrap();
        let (addresses, ttl) = answer.along(&answer.targets()[0].name).unwrap();
        assert_eq!((addresses.len(), ttl.as_secs()), (2, 20));
        assert!(answer.along("three.internal.").is_none());
    }

    #[test]
    fn a_target_shares_its_weight_among_its_addresses_and_zero_is_a_small_chance() {
        let target = |priority, weight, name: &str| Target { name: name.into(), port: 80, priority, weight };
        let one = |last| IpAddr::from([10, 0, 0, last]);
        let found = endpoints(&[
            (target(0, 30, "a."), vec![one(1), one(2)]),
            (target(0, 10, "b."), vec![one(3)]),
            (target(0, 0, "c."), vec![one(4)]),
            (target(5, 0, "d."), vec![one(5)]),
            (target(5, 0, "e."), vec![]),
        ]);
        let told: Vec<(f64, u32)> = found.iter().map(|one| (one.weight(), one.priority())).collect();
        assert_eq!(told, [(15.0, 0), (15.0, 0), (10.0, 0), (1.0, 0), (1.0, 5)]);
        assert_eq!(found[0].metadata()["dns.target"], "a");
    }
}
