//! The links in a page. A crawler of pages from many authors needs a real parser of HTML.

use reqwest::Url;

/// Returns the targets of all `href="..."` and `src="..."`, relative to the URL of the page.
pub(crate) fn links(html: &str, page: &Url) -> Vec<Url> {
    ["href=", "src="]
        .iter()
        .flat_map(|name| values(html, name))
        .filter_map(|text| target(text, page))
        .collect()
}

/// Returns the quoted values of an attribute.
fn values<'a>(html: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    html.split(name).skip(1).filter_map(|rest| {
        let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''))?;
        rest.get(1..)?.split(quote).next()
    })
}

fn target(text: &str, page: &Url) -> Option<Url> {
    page.join(&text.trim().replace("&amp;", "&")).ok()
}
