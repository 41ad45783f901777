//! Where the API is and who asks: the pod's own account, or a kubeconfig.

use std::{
    env, fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Deserialize;

use crate::resolve::web::{Access, Base, Pem, Secret, WebError};

/// Where Kubernetes puts the account of a pod.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The largest kubeconfig, in bytes.
const LARGEST: u64 = 4 << 20;

/// Where credentials come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The pod's own account, or the kubeconfig that `kubectl` would take.
    Infer,
    /// The pod's own account.
    Cluster,
    Kubeconfig(PathBuf),
    Server(Base, Box<Access>),
}

/// Whom to ask, and how.
pub(super) struct Server {
    pub(super) base: Base,
    pub(super) access: Access,
    pub(super) namespace: String,
}

impl Source {
    /// Reads files: not for the thread of a runtime.
    pub(super) fn read(&self) -> Result<Server, WebError> {
        match self {
            Self::Infer if is_in_cluster() => in_cluster(Path::new(ACCOUNT)),
            Self::Infer => kubeconfigs(&default_kubeconfigs()),
            Self::Cluster => in_cluster(Path::new(ACCOUNT)),
            Self::Kubeconfig(path) => kubeconfigs(std::slice::from_ref(path)),
            Self::Server(base, access) => {
                Ok(Server { base: base.clone(), access: (**access).clone(), namespace: "default".to_owned() })
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Infer => f.write_str("the cluster of this process"),
            Self::Cluster => f.write_str("the cluster of this pod"),
            Self::Kubeconfig(path) => write!(f, "the cluster of {}", path.display()),
            Self::Server(base, _) => base.fmt(f),
        }
    }
}

fn is_in_cluster() -> bool {
    env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(ACCOUNT).join("token").exists()
}

fn in_cluster(account: &Path) -> Result<Server, WebError> {
    let variable =
        |name: &str| env::var(name).map_err(|_| WebError::credential(name, "it is not set: this is no pod"));
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    pod(account, &host, &port)
}

fn pod(account: &Path, host: &str, port: &str) -> Result<Server, WebError> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let base = Base::parse(&format!("https://{host}:{port}"), 443)
        .ok_or_else(|| WebError::credential("KUBERNETES_SERVICE_HOST", "it is no host"))?;
    let access =
        Access::default().token(Secret::file(account.join("token"))).ca(Pem::file(account.join("ca.crt")));
    let path = account.join("namespace");
    let namespace = read(&path)?.trim().to_owned();
    Ok(Server { base, access, namespace })
}

/// `KUBECONFIG`, which may be a list, or the one in the home of the user.
fn default_kubeconfigs() -> Vec<PathBuf> {
    match env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()) {
        Some(paths) => env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(),
    }
}

fn read(path: &Path) -> Result<String, WebError> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(LARGEST).read_to_string(&mut text))
        .map_err(|error| WebError::credential(path.display(), error))?;
    Ok(text)
}

/// Of several files the first that has a thing counts. One that is not there is skipped, if there are others.
fn kubeconfigs(paths: &[PathBuf]) -> Result<Server, WebError> {
    let mut merged = Kubeconfig::default();
    let mut missing = None;
    let mut found = false;
    for path in paths {
        let text = match read(path) {
            Ok(text) => text,
            Err(error) => {
                missing = Some(error);
                continue;
            }
        };
        found = true;
        merged.absorb(parse(&text, path)?);
    }
    match missing {
        Some(error) if !found => Err(error),
        _ => merged.server(),
    }
}

/// What is wrong with it is told by its place alone: an error that shows what is there may show a token.
fn parse(text: &str, path: &Path) -> Result<Kubeconfig, WebError> {
    let mut config: Kubeconfig = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location().map(|at| format!(" at line {}", at.line())).unwrap_or_default();
        WebError::credential(path.display(), format_args!("it is not a kubeconfig{place}"))
    })?;
    // Paths in it are relative to it.
    let folder = path.parent().unwrap_or(Path::new(""));
    let own = |path: &mut Option<PathBuf>| {
        if let Some(path) = path {
            *path = folder.join(&path);
        }
    };
    for named in &mut config.clusters {
        own(&mut named.cluster.certificate_authority);
    }
    for named in &mut config.users {
        let user = &mut named.user;
        for path in [&mut user.client_certificate, &mut user.client_key, &mut user.token_file] {
            own(path);
        }
    }
    Ok(config)
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Kubeconfig {
    current_context: Option<String>,
    clusters: Vec<NamedCluster>,
    contexts: Vec<NamedContext>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: Option<String>,
    namespace: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
    username: Option<String>,
}

impl Kubeconfig {
    fn absorb(&mut self, other: Self) {
        if self.current_context.as_deref().unwrap_or_default().is_empty() {
            self.current_context = other.current_context;
        }
        // What stands first is found first.
        self.clusters.extend(other.clusters);
        self.contexts.extend(other.contexts);
        self.users.extend(other.users);
    }

    fn server(self) -> Result<Server, WebError> {
        let lost = |what: &str, name: &str| {
            WebError::credential("kubeconfig", format_args!("there is no {what} {name:?}"))
        };
        let current = self.current_context.as_deref().unwrap_or_default();
        let context = self
            .contexts
            .iter()
            .find(|named| named.name == current)
            .ok_or_else(|| lost("context", current))?;
        let context = &context.context;
        let cluster = self.clusters.iter().find(|named| named.name == context.cluster);
        let cluster = &cluster.ok_or_else(|| lost("cluster", &context.cluster))?.cluster;
        let none = User::default();
        let user = match context.user.as_deref().filter(|name| !name.is_empty()) {
            None => &none,
            Some(name) => {
                &self.users.iter().find(|named| named.name == name).ok_or_else(|| lost("user", name))?.user
            }
        };
        let base = Base::parse(&cluster.server, if cluster.server.starts_with("https") { 443 } else { 80 })
            .ok_or_else(|| WebError::credential("kubeconfig", "the cluster's server is no address"))?;
        let namespace =
            context.namespace.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
        Ok(Server { base, access: access(cluster, user)?, namespace })
    }
}

fn access(cluster: &Cluster, user: &User) -> Result<Access, WebError> {
    let refuse = |what: &str| {
        Err(WebError::credential(
            "kubeconfig",
            format_args!("{what} is not supported here; a token, a tokenFile or a client certificate is"),
        ))
    };
    if cluster.proxy_url.is_some() {
        return refuse("a proxy-url");
    }
    let mut access = Access::default().insecure(cluster.insecure_skip_tls_verify);
    access.name = cluster.tls_server_name.clone().filter(|name| !name.is_empty());
    access.ca = pem(cluster.certificate_authority_data.as_deref(), cluster.certificate_authority.as_deref())?;
    // A file wins, because what is in it may be newer.
    access.token = match (&user.token_file, &user.token) {
        (Some(path), _) => Some(Secret::file(path)),
        (None, Some(token)) if !token.is_empty() => Some(Secret::value(token.as_str())),
        _ => None,
    };
    let certificate = pem(user.client_certificate_data.as_deref(), user.client_certificate.as_deref())?;
    let key = pem(user.client_key_data.as_deref(), user.client_key.as_deref())?;
    access.identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            return Err(WebError::credential(
                "kubeconfig",
                "a client certificate and its key need each other",
            ));
        }
    };
    if access.token.is_none() && access.identity.is_none() {
        if user.exec.is_some() {
            return refuse("an exec plugin");
        }
        if user.auth_provider.is_some() {
            return refuse("an auth-provider");
        }
        if user.username.is_some() {
            return refuse("a password");
        }
    }
    Ok(access)
}

/// What is in the kubeconfig wins over the file that it names, as it does for `kubectl`.
fn pem(data: Option<&str>, path: Option<&Path>) -> Result<Option<Pem>, WebError> {
    match data.filter(|data| !data.is_empty()) {
        Some(data) => {
            let bytes = BASE64_STANDARD
                .decode(data.trim())
                .map_err(|_| WebError::credential("kubeconfig", "certificate data is not base64"))?;
            Ok(Some(Pem::text(bytes)))
        }
        None => Ok(path.map(Pem::file)),
    }
}

/// Reads whatever `text` is as a kubeconfig.
#[cfg(any(test, fuzzing))]
pub(in crate::resolve) fn fuzz(text: &str) {
    let _ = parse(text, Path::new("/a/b")).and_then(Kubeconfig::server);
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &str = r"
apiVersion: v1
kind: Config
current-context: here
clusters:
- name: a
  cluster: {server: 'https://10.0.0.1:6443', certificate-authority: pki/ca.crt, tls-server-name: kubernetes}
- name: b
  cluster: {server: 'http://127.0.0.1:8001/proxy/', insecure-skip-tls-verify: true}
contexts:
- name: here
  context: {cluster: a, user: me, namespace: prod}
- name: there
  context: {cluster: b, user: ''}
users:
- name: me
  user: {tokenFile: token, token: hidden-token, client-certificate-data: aGlkZGVu, client-key: /etc/key.pem}
- name: plugin
  user: {exec: {command: aws, args: [eks]}}
";

    fn server(text: &str) -> Result<Server, String> {
        parse(text, Path::new("/home/me/.kube/config"))
            .and_then(Kubeconfig::server)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_kubeconfig_says_where_and_who() {
        let here = server(WHOLE).map_err(|error| panic!("{error}")).unwrap();
        assert_eq!(
            (here.base.to_string().as_str(), here.namespace.as_str()),
            ("https://10.0.0.1:6443", "prod")
        );
        let access = Access::default()
            .ca(Pem::file("/home/me/.kube/pki/ca.crt"))
            .name("kubernetes")
            .token(Secret::file("/home/me/.kube/token"))
            .identity(Pem::text("hidden"), Pem::file("/etc/key.pem"));
        assert_eq!(here.access, access);
        assert!(!format!("{access:?}").contains("hidden"));
        let there = server(&WHOLE.replace("current-context: here", "current-context: there"))
            .map_err(|error| panic!("{error}"))
            .unwrap();
        assert_eq!(
            (there.base.to_string().as_str(), there.namespace.as_str()),
            ("http://127.0.0.1:8001/proxy", "default")
        );
        assert_eq!(there.access, Access::default().insecure(true));
    }

    #[test]
    fn what_a_kubeconfig_lacks_or_asks_too_much_is_told_and_nothing_in_it() {
        let plugin = WHOLE.replace("user: me", "user: plugin");
        assert!(server(&plugin).err().unwrap().contains("an exec plugin is not supported here"));
        let lost = WHOLE.replace("current-context: here", "current-context: x");
        assert_eq!(server(&lost).err().unwrap(), "kubeconfig: there is no context \"x\"");
        let half = WHOLE.replace(", client-key: /etc/key.pem", "");
        assert!(server(&half).err().unwrap().contains("need each other"));
        let broken = WHOLE.replace("token: hidden-token", "token: [hidden-token]");
        let told = server(&broken).err().unwrap();
        assert!(told.contains("it is not a kubeconfig") && !told.contains("hidden"), "{told}");
    }

    #[test]
    fn the_first_of_several_files_wins() {
        let mut merged =
            parse("current-context: ''\nusers: [{name: me, user: {token: first}}]", Path::new("/a/b"))
                .map_err(|_| ())
                .unwrap();
        merged.absorb(parse(WHOLE, Path::new("/c/d")).map_err(|_| ()).unwrap());
        assert_eq!(merged.server().map_err(|_| ()).unwrap().access.token, Some(Secret::value("first")));
    }

    #[test]
    fn a_pod_has_an_account() {
        let folder = std::env::temp_dir().join(format!("mainstay-account-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("namespace"), "prod\n").unwrap();
        let server = pod(&folder, "fd00::1", "443").map_err(|error| panic!("{error}")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            (server.base.to_string().as_str(), server.namespace.as_str()),
            ("https://[fd00::1]:443", "prod")
        );
        assert_eq!(server.access.token, Some(Secret::file(folder.join("token"))));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            fuzz(&text);
        }

        #[test]
        fn no_broken_kubeconfig_panics(at in 0_usize..1000, put in "\\PC{0,3}", cut in 0_usize..2000) {
            let (before, after) = WHOLE.split_at(at.min(WHOLE.len()));
            fuzz(&format!("{before}{put}{after}").chars().take(cut).collect::<String>());
        }
    }
}
