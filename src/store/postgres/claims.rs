//! The claims to compute cached values.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::cache::values;
use super::calls::Call;
use super::group::{Answered, Operation};
use super::link::{Link, Scope};
use super::microseconds;
use super::over_rows::OverRows;
use crate::store::fault::Fault;
use crate::store::{CacheKey, Checksummed, Claim, rows};

/// Acquires the claims on keys that have none, an expired one, or one of the same holder. A key with a value is claimed only
/// to overwrite it. Returns the claims that were acquired, and the values. Rows are locked in the order of the keys.
static CLAIM: OverRows = OverRows::new(
    "
    WITH wanted AS (
        SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::boolean[])
            AS wanted (task, version, item_hash, holder, lease_us, overwrite)
    ), taken AS (
        INSERT INTO map_task_claims AS claim (task, version, item_hash, holder, held_until)
        SELECT task, version, item_hash, holder, clock_timestamp() + lease_us * interval '1 microsecond'
        FROM wanted
        WHERE overwrite OR NOT EXISTS (
            SELECT FROM map_task_cache AS cached
            WHERE cached.task = wanted.task AND cached.version = wanted.version
                AND cached.item_hash = wanted.item_hash AND (expires IS NULL OR expires > now())
        )
        ORDER BY task COLLATE \"C\", version COLLATE \"C\", item_hash COLLATE \"C\"
        ON CONFLICT (task, version, item_hash) DO UPDATE SET
            holder = excluded.holder, held_until = excluded.held_until
        WHERE claim.holder = excluded.holder OR claim.held_until <= clock_timestamp()
        RETURNING task, version, item_hash
    )
    SELECT task, version, item_hash, NULL AS output, NULL AS checksum FROM taken
    UNION ALL
    SELECT cached.task, cached.version, cached.item_hash, output, checksum
    FROM wanted JOIN map_task_cache AS cached ON cached.task = wanted.task
        AND cached.version = wanted.version AND cached.item_hash = wanted.item_hash
    WHERE NOT overwrite AND (expires IS NULL OR expires > now())",
);

static REMAINING: OverRows = OverRows::new(
    "
    SELECT place, greatest((extract(epoch FROM held_until - clock_timestamp()) * 1000)::bigint, 0)
    FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::text[]) AS wanted (place, task, version, item_hash)
    JOIN map_task_claims AS claim ON claim.task = wanted.task AND claim.version = wanted.version
        AND claim.item_hash = wanted.item_hash",
);

/// Releases claims that still belong to their holders.
static GIVE_BACK: OverRows = OverRows::new(
    "
    DELETE FROM map_task_claims AS claim
    USING UNNEST($1::text[], $2::text[], $3::text[], $4::text[]) AS given (task, version, item_hash, holder)
    WHERE claim.task = given.task AND claim.version = given.version AND claim.item_hash = given.item_hash
        AND claim.holder = given.holder",
);

/// A key with a claim that was acquired, or with a value: task, version, item hash; output, checksum.
type ClaimRow = (String, String, String, Option<String>, Option<String>);

/// A requested claim.
#[derive(Debug)]
pub(super) struct NewClaim {
    pub(super) key: CacheKey,
    pub(super) holder: String,
    pub(super) lease: Duration,
    pub(super) overwrite: bool,
}

impl Operation for NewClaim {
    type Answer = Claim;

    /// Each statement takes effect on its own. A claim that is acquired and not answered is released by the next value of its
    /// key, or expires.
    const CALL: Call = Call::new("claiming a cached value", Scope::Statement);

    const GROUPS: usize = 2;
    const MAX_GROUP: usize = 1_024;

    fn bytes(&self) -> usize {
        0
    }

    async fn execute(link: &mut Link, group: &[Arc<Self>]) -> Result<Vec<Answered<Self>>, Fault> {
        let mut answers: Vec<Option<Claim>> = group.iter().map(|_| None).collect();
        let mut left: Vec<(usize, &Self)> = group.iter().map(|claim| &**claim).enumerate().collect();
        // Several claims on one key are granted one after another.
        while !left.is_empty() {
            let mut keys = HashSet::new();
            let (round, later) =
                mem::take(&mut left).into_iter().partition(|(_, claim)| keys.insert(&claim.key));
            left = later;
            Round { link: &mut *link, answers: &mut answers }.run(round).await?;
        }
        Ok(answers.into_iter().map(|answer| Ok(answer.unwrap_or(Claim::Granted))).collect())
    }
}

/// Claims on distinct keys.
struct Round<'c> {
    link: &'c mut Link,
    answers: &'c mut [Option<Claim>],
}

type Numbered<'c> = Vec<(usize, &'c NewClaim)>;

impl Round<'_> {
    async fn run(mut self, claims: Numbered<'_>) -> Result<(), Fault> {
        let (taken, held) = self.take(claims).await?;
        self.answer_remaining(&held).await?;
        // The former holder of a claim may have stored the value meanwhile. Then the claim is released.
        let cached = self.answer_taken(taken).await?;
        if !cached.is_empty() {
            let give_back =
                GIVE_BACK.of(&cached).keys(|claim| &claim.key).column(|claim| claim.holder.as_str());
            self.link.execute(give_back.statement).await?;
        }
        Ok(())
    }

    /// Acquires the available claims, and answers the claims on keys that have a value. Returns the acquired claims, and
    /// those that others hold.
    async fn take<'c>(&mut self, claims: Numbered<'c>) -> Result<(Numbered<'c>, Numbered<'c>), Fault> {
        let take = CLAIM
            .of(&claims)
            .keys(|(_, claim)| &claim.key)
            .column(|(_, claim)| claim.holder.as_str())
            .column(|(_, claim)| microseconds(claim.lease))
            .column(|(_, claim)| claim.overwrite);
        let rows: Vec<ClaimRow> = self.link.rows(take.statement).await?;
        let (mut acquired, mut values) = (HashSet::new(), HashMap::new());
        for (task, version, item_hash, json, checksum) in rows {
            let key = CacheKey { task, version, item_hash };
            match (json, checksum) {
                (Some(json), Some(checksum)) => drop(values.insert(key, Checksummed { json, checksum })),
                _ => drop(acquired.insert(key)),
            }
        }
        let (mut taken, mut held) = (Vec::new(), Vec::new());
        for (place, claim) in claims {
            match values.remove(&claim.key) {
                Some(value) => self.answer(place, Claim::Cached(value)),
                None if acquired.contains(&claim.key) => taken.push((place, claim)),
                None => held.push((place, claim)),
            }
        }
        Ok((taken, held))
    }

    /// Answers the claims that were acquired, and returns those whose keys have a value. A claim that overwrites does not
    /// look for a value.
    async fn answer_taken<'c>(&mut self, taken: Numbered<'c>) -> Result<Vec<&'c NewClaim>, Fault> {
        let (overwriting, others): (Numbered<'c>, Numbered<'c>) =
            taken.into_iter().partition(|(_, claim)| claim.overwrite);
        for (place, _) in overwriting {
            self.answer(place, Claim::Granted);
        }
        if others.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<&CacheKey> = others.iter().map(|(_, claim)| &claim.key).collect();
        let found = values(self.link, &keys).await?;
        let mut cached = Vec::new();
        for ((place, claim), value) in others.into_iter().zip(found) {
            match value {
                Some(value) => {
                    self.answer(place, Claim::Cached(value));
                    cached.push(claim);
                }
                None => self.answer(place, Claim::Granted),
            }
        }
        Ok(cached)
    }

    /// Answers the claims that others hold with their remaining time.
    async fn answer_remaining(&mut self, held: &Numbered<'_>) -> Result<(), Fault> {
        if held.is_empty() {
            return Ok(());
        }
        let find = REMAINING.of(held).places().keys(|(_, claim)| &claim.key);
        let remaining: HashMap<i64, i64> =
            self.link.rows::<(i64, i64)>(find.statement).await?.into_iter().collect();
        for (number, (place, _)) in (0..).zip(held) {
            let remaining = rows::number(remaining.get(&number).copied().unwrap_or_default())?;
            self.answer(*place, Claim::Held { remaining: Duration::from_millis(remaining) });
        }
        Ok(())
    }

    fn answer(&mut self, place: usize, claim: Claim) {
        if let Some(answer) = self.answers.get_mut(place) {
            *answer = Some(claim);
        }
    }
}

pub(super) async fn renew(
    link: &mut Link,
    key: &CacheKey,
    holder: &str,
    lease: Duration,
) -> Result<bool, Fault> {
    let renew = sqlx::query(
        "UPDATE map_task_claims SET held_until = clock_timestamp() + $5::bigint * interval '1 microsecond'
         WHERE task = $1 AND version = $2 AND item_hash = $3 AND holder = $4",
    );
    let renew = renew.bind(&key.task).bind(&key.version).bind(&key.item_hash);
    Ok(link.execute(renew.bind(holder).bind(microseconds(lease))).await? > 0)
}

pub(super) async fn release(link: &mut Link, key: &CacheKey, holder: &str) -> Result<(), Fault> {
    let release = sqlx::query(
        "DELETE FROM map_task_claims
         WHERE task = $1 AND version = $2 AND item_hash = $3 AND holder = $4",
    );
    let release = release.bind(&key.task).bind(&key.version).bind(&key.item_hash);
    link.execute(release.bind(holder)).await?;
    Ok(())
}
