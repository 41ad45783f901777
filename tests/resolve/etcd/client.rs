//! A client of etcd that was written for the tests alone, to change what is there quickly.

use http::uri::PathAndQuery;
use prost::Message;
use tonic::{
    Request, Status,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
struct Txn {
    #[prost(message, repeated, tag = "2")]
    success: Vec<Op>,
}

#[derive(Clone, PartialEq, Message)]
struct Op {
    #[prost(message, optional, tag = "2")]
    put: Option<Put>,
    #[prost(message, optional, tag = "3")]
    delete: Option<Delete>,
}

#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Delete {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Login {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    password: String,
}

#[derive(Clone, PartialEq, Message)]
struct LoggedIn {
    #[prost(string, tag = "2")]
    token: String,
}

#[derive(Clone, PartialEq, Message)]
struct Done {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Compact {
    #[prost(int64, tag = "1")]
    revision: i64,
    #[prost(bool, tag = "2")]
    physical: bool,
}

pub(crate) struct Client {
    grpc: Grpc<Channel>,
    token: Option<String>,
}

impl Client {
    pub(crate) async fn open(url: &str, login: Option<(&str, &str)>) -> Self {
        let channel = Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        let mut client = Self { grpc: Grpc::new(channel), token: None };
        if let Some((name, password)) = login {
            let login = Login { name: name.to_owned(), password: password.to_owned() };
            let answer: LoggedIn = client.ask("/etcdserverpb.Auth/Authenticate", login).await.unwrap();
            client.token = Some(answer.token);
        }
        client
    }

    /// Puts and deletes, all at once. Returns the revision that this made.
    pub(crate) async fn change(
        &mut self,
        put: &[(String, String)],
        delete: &[String],
    ) -> Result<i64, Status> {
        let bytes = |text: &String| text.clone().into_bytes();
        let put = put
            .iter()
            .map(|(key, value)| Op { put: Some(Put { key: bytes(key), value: bytes(value) }), delete: None });
        let delete = delete.iter().map(|key| Op { put: None, delete: Some(Delete { key: bytes(key) }) });
        let txn = Txn { success: put.chain(delete).collect() };
        let done: Done = self.ask("/etcdserverpb.KV/Txn", txn).await?;
        Ok(done.header.map_or(0, |header| header.revision))
    }

    /// Forgets what was before `revision`.
    pub(crate) async fn compact(&mut self, revision: i64) {
        let _: Done =
            self.ask("/etcdserverpb.KV/Compact", Compact { revision, physical: true }).await.unwrap();
    }

    async fn ask<Q, A>(&mut self, path: &'static str, message: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.parse().unwrap());
        }
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        Ok(self.grpc.unary(request, path, ProstCodec::<Q, A>::default()).await?.into_inner())
    }
}
