//! Hides the passwords in URLs: `http://name:password@host/` becomes `http://***@host/`. The name is hidden as well,
//! because a token is often sent as the name.
//!
//! A job keeps its real URLs, because it needs them. Everything that leaves it passes through here: records, pages,
//! errors and log lines.

use std::sync::Arc;

use reqwest::Url;

const MASK: &str = "***";

/// Returns a URL as it may be shown.
pub(crate) fn url(url: &Arc<str>) -> Arc<str> {
    let is_suspect = url.contains('@');
    let parsed = is_suspect.then(|| Url::parse(url).ok()).flatten();
    let Some(mut parsed) = parsed.filter(has_credentials) else { return Arc::clone(url) };
    let hidden = parsed.set_username(MASK).and_then(|()| parsed.set_password(None));
    hidden.map_or_else(|()| MASK.into(), |()| String::from(parsed).into())
}

/// Returns a text that may contain a URL, valid or not, as it may be shown. A password in an invalid URL has no certain
/// end. So this hides everything from the first `//` to the last `@`, which may be too much.
pub(crate) fn text(text: &str) -> String {
    let start = text.find("//").map_or(0, |slashes| slashes + 2);
    match text.rfind('@') {
        Some(end) if end >= start => {
            let (head, tail) = (text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default());
            format!("{head}{MASK}{tail}")
        }
        _ => text.to_owned(),
    }
}

pub(crate) fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}
