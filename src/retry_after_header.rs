//! The header `Retry-After` of an HTTP response as a duration.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// The longest time that is returned.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the time that the header `Retry-After` names, from now on. Needs the feature `http`.
///
/// The header has a number of seconds or a date (RFC 9110, section 10.2.3). A date in the past is a time of 0. A date depends on
/// the clock of this machine. A time above 24 hours counts as 24 hours. Returns `None` if there is no such header, or if it is
/// neither a number nor a date; if there are several, the first counts.
///
/// It fits [`hold_back`](crate::MapRun::hold_back), which lets all items wait, and [`retry_after`](crate::MapRun::retry_after), which
/// lets one wait.
///
/// # Examples
///
/// ```
/// use async_map_task::retry_after_header;
/// use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
/// use std::time::Duration;
///
/// let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("120"))]);
/// assert_eq!(retry_after_header(&headers), Some(Duration::from_secs(120)));
/// assert_eq!(retry_after_header(&HeaderMap::new()), None);
/// ```
pub fn retry_after_header(headers: &HeaderMap) -> Option<Duration> {
    time_from(headers, SystemTime::now())
}

fn time_from(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let time = if is_number {
        // A number that does not fit is above all times.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(time.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rule_39_a_header_has_seconds_or_a_date() {
        // 1994-11-06 08:49:37 UTC, the example of RFC 9110.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |values: &[&str]| {
            let value = |value: &&str| (RETRY_AFTER, HeaderValue::from_str(value).unwrap());
            time_from(&values.iter().map(value).collect(), now).map(|time| time.as_secs())
        };
        let cases: [(&[&str], Option<u64>); 14] = [
            (&[], None),
            (&["0"], Some(0)),
            (&["120"], Some(120)),
            (&[" 120 "], Some(120)),
            (&["86401"], Some(86_400)),
            (&["99999999999999999999999"], Some(86_400)),
            (&["7", "9"], Some(7)),
            (&["-1"], None),
            (&["1.5"], None),
            (&[""], None),
            (&["soon"], None),
            (&["Sun, 06 Nov 1994 08:50:37 GMT"], Some(60)),
            (&["Sunday, 06-Nov-94 08:49:30 GMT"], Some(0)),
            (&["Sun Nov  6 09:49:37 1994"], Some(3_600)),
        ];
        for (values, expected) in cases {
            assert_eq!(read(values), expected, "{values:?}");
        }
        let not_text = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_bytes(&[0xff]).unwrap())]);
        assert_eq!(time_from(&not_text, now), None);
    }

    proptest! {
        #[test]
        fn rule_39_any_bytes_are_a_time_or_none(bytes in prop::collection::vec(any::<u8>(), 0..40), seconds in any::<u128>()) {
            let read = |bytes: &[u8]| {
                let value = HeaderValue::from_bytes(bytes).ok()?;
                time_from(&HeaderMap::from_iter([(RETRY_AFTER, value)]), SystemTime::UNIX_EPOCH)
            };
            prop_assert!(read(&bytes).is_none_or(|time| time <= LONGEST));
            let bound = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)).min(LONGEST);
            prop_assert_eq!(read(seconds.to_string().as_bytes()), Some(bound));
        }
    }
}
