use std::collections::BTreeMap;

use proptest::{collection::btree_map, option, prelude::*};

use super::{Assembly, Encoding, Entry, Instance, Node, Status, is_self_contained, read, read::fuzz};
use crate::endpoint::Reported;

const ALL: [Encoding; 5] =
    [Encoding::Plain, Encoding::Grpc, Encoding::Nerve, Encoding::NervePath, Encoding::Serverset];

fn address() -> impl Strategy<Value = String> {
    let host = prop_oneof!["[a-z][a-z0-9.-]{0,20}", Just("10.0.0.7".to_owned()), Just("[::1]".to_owned())];
    (host, 1_u16..).prop_map(|(host, port)| format!("{host}:{port}"))
}

fn words() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-z]{1,6}", "\\PC{0,12}", 0..4)
}

/// An instance with nothing that `encoding` has no place for.
fn instance(encoding: Encoding) -> impl Strategy<Value = Instance> {
    let name = option::of("[a-zA-Z0-9:._-]{1,20}");
    let status = prop_oneof![Just(Status::Alive), Just(Status::Starting), Just(Status::Stopping)];
    let more = (option::of(any::<i64>()), btree_map("[a-z]{1,6}", address(), 0..3), status);
    (address(), name, option::of(1_u32..), words(), more).prop_map(
        move |(address, name, weight, mut metadata, (shard, additional, status))| {
            let mut instance = Instance::new(address);
            let serverset = encoding == Encoding::Serverset;
            match encoding {
                Encoding::Plain => {}
                Encoding::Serverset => {
                    (instance.shard, instance.additional, instance.status) = (shard, additional, status);
                }
                // Of Nerve every instance has a name.
                Encoding::Nerve | Encoding::NervePath => {
                    instance.name = Some(name.unwrap_or_else(|| instance.address.clone()));
                }
                Encoding::Grpc => instance.name = name,
            }
            if !serverset && encoding != Encoding::Plain {
                instance.weight = weight.map(f64::from);
            }
            if encoding == Encoding::Grpc {
                // These two are what gRPC's metadata says of the instance itself.
                metadata.retain(|key, _| key != "name" && key != "weight");
            }
            if encoding != Encoding::Plain {
                instance.metadata = metadata;
            }
            instance
        },
    )
}

fn with_encoding() -> impl Strategy<Value = (Encoding, Instance)> {
    proptest::sample::select(&ALL[..]).prop_flat_map(|encoding| (Just(encoding), instance(encoding)))
}

proptest! {
    #[test]
    fn what_is_written_is_read_whether_the_encoding_is_told_or_found_out((encoding, instance) in with_encoding()) {
        if instance.validate(encoding).is_ok() {
            let (sequential, key) = (format!("{}0000000042", encoding.node(&instance)), encoding.key(&instance));
            for name in [sequential, key] {
                for told in [Some(encoding), None] {
                    let found = read(told, &name, &encoding.write(&instance));
                    prop_assert_eq!(found, Ok(Entry::from(instance.clone())));
                }
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        fuzz(&bytes);
    }

    #[test]
    fn no_text_of_their_words_panics(
        name in "(base64_|member_|vector_|[0-9]{1,3}|_|[A-Za-z0-9=-]{1,8}){0,4}",
        data in r#"([{}\[\]:,]|"(host|port|weight|name|labels|Addr|Op|Metadata|serviceEndpoint|vector|select|status|shard)":|"[a-z=.:0-9]{0,9}"|-?[0-9]{1,22}|null|1e999){0,24}"#,
    ) {
        fuzz(format!("{name}\n{data}").as_bytes());
    }
}

/// JSON of the words that the encodings know.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let text =
        prop_oneof![address(), "[a-z]{0,3}", "(shard|member|inet)=[a-z0-9:]{0,5}", Just("ALIVE".to_owned())];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        (0_i64..70_000).prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        text.prop_map(Into::into),
    ];
    let words = "host|port|name|weight|labels|Addr|Op|Metadata|serviceEndpoint|additionalEndpoints|status|shard\
                 |metadata|vector|select";
    leaf.prop_recursive(4, 24, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
            proptest::collection::hash_map(words, inner, 0..7)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_panics_and_what_is_read_of_it_can_be_written(name in "(member_|vector_|x)", data in json()) {
        fuzz(format!("{name}\n{data}").as_bytes());
    }
}

fn endpoints(nodes: &[(&str, &str)]) -> Vec<(String, f64, Reported)> {
    let read: Vec<_> =
        nodes.iter().map(|(name, data)| Node::read(None, name, data.as_bytes(), None)).collect();
    let mut assembly = Assembly::weighing(read.iter());
    nodes.iter().zip(&read).for_each(|((name, _), node)| assembly.take(name, node));
    assembly.finish().iter().map(|one| (one.address().to_string(), one.weight(), one.reported())).collect()
}

#[test]
fn of_several_nodes_with_one_address_the_fittest_counts_and_then_the_youngest() {
    let member =
        |status: &str| format!(r#"{{"serviceEndpoint":{{"host":"a","port":1}},"status":"{status}"}}"#);
    let nodes =
        [("member_1", &*member("ALIVE")), ("member_2", &member("STARTING")), ("member_3", &member("DEAD"))];
    assert_eq!(endpoints(&nodes), [("a:1".to_owned(), 1.0, Reported::Healthy)]);
    let nerve = |weight: u32| format!(r#"{{"host":"a","port":1,"name":"x","weight":{weight}}}"#);
    let nodes = [("x_1", &*nerve(5)), ("x_2", &nerve(7))];
    assert_eq!(endpoints(&nodes), [("a:1".to_owned(), 7.0, Reported::Healthy)]);
}

#[test]
fn what_has_no_weight_gets_nothing_new() {
    let nodes = [("x", r#"{"host":"a","port":1,"weight":0}"#)];
    assert_eq!(endpoints(&nodes), [("a:1".to_owned(), 1.0, Reported::Draining)]);
}

#[test]
fn a_bad_node_is_told_with_its_reason_and_without_its_contents() {
    for (name, data, reason) in [
        ("a", "", "no data"),
        ("a", "10.0.0.1", "not a host and a port"),
        ("a", "10.0.0.1:0", "not a host and a port"),
        ("a", "::1:80", "not a host and a port"),
        ("a", "{\"host\":\"a\"", "no JSON: it breaks off or goes wrong at line 1, column 11"),
        ("a", "{\"host\":\"a\"}", "no port from 1 to 65535"),
        ("a", "{\"host\":\"a\",\"port\":65536}", "no port from 1 to 65535"),
        ("a", "{\"host\":\"a b\",\"port\":6}", "a host that none is called"),
        ("a", "{\"Op\":0}", "no Addr"),
        ("a", "{}", "none of serviceEndpoint, host and Addr in its JSON"),
        ("member_1", "{\"serviceEndpoint\":{}}", "no host"),
        ("base64_9999_e30=_1", "", "a length that does not fit the name"),
        ("base64_2_??_1", "", "a name that is not base 64"),
        ("base64_4_e30=_1", "", "no host"),
    ] {
        let told = read(None, name, data.as_bytes()).unwrap_err();
        assert_eq!(told.0, reason, "{name} {data}");
    }
    let mut weight = Assembly::default();
    weight.take("x", &Node::read(None, "x", br#"{"host":"a","port":1,"weight":-1}"#, None));
    assert_eq!(weight.skipped, [("x".to_owned(), "a weight that is no positive number".into())]);
}

#[test]
fn a_name_that_says_all_needs_no_data() {
    let name = Encoding::NervePath.node(&Instance::new("10.0.0.7:80").weight(2.0));
    assert!(is_self_contained(&name) && !is_self_contained("member_1"));
    assert_eq!(
        endpoints(&[(&format!("{name}0000000001"), "")]),
        [("10.0.0.7:80".to_owned(), 2.0, Reported::Healthy)]
    );
}

#[test]
fn what_an_encoding_has_no_place_for_is_not_announced_in_it() {
    let full = Instance::new("a:1")
        .weight(1.5)
        .shard(1)
        .status(Status::Starting)
        .additional("x", "a:2")
        .metadata("k", "v");
    let problems = |encoding| full.validate(encoding).unwrap_err().problems().len();
    assert_eq!(ALL.map(problems), [5, 3, 4, 4, 1]);
    let said_twice = Instance::new("a:1").metadata("weight", "2");
    assert!(said_twice.validate(Encoding::Grpc).is_err() && said_twice.validate(Encoding::Nerve).is_ok());
}
