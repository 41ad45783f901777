//! A quota in a Redis server.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{Client, Script, aio::MultiplexedConnection};
use tower::BoxError;

use super::{Granted, Quota, Taking};
use crate::{Invalid, invalid::Check, limit::rate::RateLimitOptions};

/// The cell rate algorithm by the server's clock, in sixteenths of a microsecond since 2023-11-14: whole numbers that Lua's
/// can hold until 2041. A clock that was set back does not close the quota: nothing was ever taken further ahead than a whole
/// burst and the longest wait.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = ((tonumber(time[1]) - 1700000000) * 1000000 + tonumber(time[2])) * 16
local interval, burst, weight = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local patience, longest = tonumber(ARGV[4]), tonumber(ARGV[5])
local span = interval * burst
if weight > burst then return {2, 0} end
local free = tonumber(redis.call('GET', KEYS[1]) or '0')
free = math.min(math.max(free, now), now + span + longest)
local after = free + interval * weight
local wait = math.max(after - span - now, 0)
local micros = math.ceil(wait / 16)
if wait > patience then return {1, micros} end
if weight > 0 then
  if wait > 0 then after = now + span + micros * 16 end
  redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 16000) + 1000)
end
return {0, micros}
";

/// Sixteenths of a microsecond in a microsecond.
const PARTS: u128 = 16;

/// A rate that all who name the same server and the same name share; feature `redis`.
///
/// In any interval of the server's clock no more than `burst + rate x t` are granted, whoever asks. The interval between
/// two is rounded up to a sixteenth of a microsecond: above some 100,000 a second it may be a per cent less than was said.
/// Each request is one round trip, on one connection, which is made at the first and again after it broke.
///
/// A server that restarts without its data has forgotten what was taken: a burst more may pass.
pub struct Redis {
    client: Client,
    connection: Arc<Mutex<Option<MultiplexedConnection>>>,
    script: Script,
    key: String,
    interval: u64,
    burst: u32,
    longest: Duration,
}

impl Redis {
    /// The quota `name` at the server `url`, for example `redis://cache.internal:6379/`. It is first asked with the first
    /// request. All that use the same name should say the same rate.
    ///
    /// # Errors
    /// [`Invalid`] if the address makes no sense, and with every option that breaks its rule.
    pub fn new(url: &str, name: &str, options: RateLimitOptions) -> Result<Self, Invalid> {
        let client = Client::open(url);
        let mut check = Check::default();
        // The address may hold a password: it is not told.
        check.rule(client.is_ok(), "url", "...", "redis://[user:password@]host[:port][/database]");
        options.check(&mut check);
        check.finish()?;
        let client = client.map_err(|_| Check::missing("url"))?;
        let interval = (options.per.as_nanos() * PARTS).div_ceil(u128::from(options.rate) * 1_000);
        Ok(Self {
            client,
            connection: Arc::default(),
            script: Script::new(SCRIPT),
            key: format!("mainstay:quota:{name}"),
            interval: u64::try_from(interval).unwrap_or(u64::MAX),
            burst: options.burst,
            longest: Duration::from_secs(3_600),
        })
    }

    async fn ask(&self, weight: u32, patience: Duration) -> Result<Granted, BoxError> {
        let mut connection = self.connected().await?;
        let asked: Result<(u8, u64), _> = self
            .script
            .key(&self.key)
            .arg(self.interval)
            .arg(self.burst)
            .arg(weight)
            .arg(parts(patience))
            .arg(parts(self.longest))
            .invoke_async(&mut connection)
            .await;
        match asked {
            Ok((0, micros)) => Ok(Granted::After(Duration::from_micros(micros))),
            Ok((1, micros)) => Ok(Granted::NotYet(Some(Duration::from_micros(micros)))),
            Ok(_) => Ok(Granted::NotYet(None)),
            Err(error) => {
                // The next one connects anew.
                *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Err(error.into())
            }
        }
    }

    /// The one connection. Several that find none may each make one; the last is kept.
    async fn connected(&self) -> Result<MultiplexedConnection, BoxError> {
        let known = self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(connection) = known {
            return Ok(connection);
        }
        let made = self.client.get_multiplexed_async_connection().await?;
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(made.clone());
        Ok(made)
    }
}

fn parts(time: Duration) -> u64 {
    u64::try_from(time.as_micros() * PARTS).unwrap_or(u64::MAX)
}

impl Quota for Redis {
    fn take(&self, weight: u32, patience: Duration) -> Taking<'_> {
        Box::pin(self.ask(weight, patience))
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("key", &self.key).finish_non_exhaustive()
    }
}
