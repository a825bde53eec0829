//! The arguments of the attribute: their names, and how they are parsed.

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Error, Ident, Lit, Path, Token};

use crate::check;
use crate::unknown;
use crate::value::{Kind, Value};

/// Every argument, in the order of the builder's documentation. The name is that of the setter.
const ARGUMENTS: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("concurrency", Kind::Bound),
    ("unbounded_concurrency", Kind::Switch),
    ("look_ahead", Kind::Bound),
    ("retries", Kind::Retries),
    ("retry_delay", Kind::Duration),
    ("max_retry_delay", Kind::Duration),
    ("retry_multiplier", Kind::Multiplier),
    ("retry_jitter", Kind::Fraction),
    ("retry_timeouts", Kind::Flag),
    ("timeout_per_attempt", Kind::Duration),
    ("timeout_per_item", Kind::Duration),
    ("run_timeout", Kind::Duration),
    ("min_success_ratio", Kind::Fraction),
    ("allow_failures", Kind::Switch),
    ("min_successes", Kind::Count),
    ("max_failures", Kind::Count),
    ("early_success", Kind::Flag),
    ("fail_fast", Kind::Flag),
    ("accept_partial", Kind::Flag),
    ("cancel_grace", Kind::Duration),
];

/// The argument that is not a setting: the path to the crate.
const CRATE: &str = "crate";

/// The names of all arguments.
pub(crate) fn names() -> Vec<&'static str> {
    ARGUMENTS.iter().map(|(name, _)| *name).chain([CRATE]).collect()
}

/// One setting, as it was given.
pub(crate) struct Setting {
    pub(crate) name: Ident,
    pub(crate) value: Value,
    /// The tokens of the value, or the name if it stands alone.
    pub(crate) tokens: TokenStream,
}

impl Setting {
    /// The error of a value that is not allowed, in the words of `ConfigError`.
    pub(crate) fn must_be(&self, allowed: &str, found: impl std::fmt::Display) -> Error {
        Error::new_spanned(&self.tokens, format!("{} must be {allowed}, got {found}", self.name))
    }

    /// Returns the call of the setter, or `None` if it is not called.
    pub(crate) fn call(&self) -> Option<TokenStream> {
        let (name, argument) = (&self.name, self.value.argument(self.tokens.span())?);
        Some(quote!(.#name(#argument)))
    }

    /// The setting as it was written, for the documentation.
    pub(crate) fn text(&self) -> String {
        let (name, value) = (self.name.to_string(), written(&self.tokens));
        if name == value { name } else { format!("{name} = {value}") }
    }
}

/// Returns the text of a value. The tokens alone have a space in `- 1`.
fn written(tokens: &TokenStream) -> String {
    let text = tokens.to_string();
    text.strip_prefix("- ").map_or_else(|| text.clone(), |number| format!("-{number}"))
}

/// The arguments of one attribute.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) settings: Vec<Setting>,
    krate: Option<Path>,
}

impl Arguments {
    /// Parses and checks the arguments. `function` is named in messages. Returns all mistakes.
    pub(crate) fn parse(tokens: TokenStream, function: &str) -> Result<Self, Error> {
        let mut arguments = Self::default();
        let mut mistakes = Mistakes::default();
        let read_all = |input: ParseStream<'_>| {
            while !input.is_empty() {
                let name = input.call(Ident::parse_any);
                let name =
                    name.map_err(|error| Error::new(error.span(), "expected the name of a setting"))?;
                mistakes.note(arguments.read_one(name, input, function));
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        };
        let read = read_all.parse2(tokens);
        mistakes.note(read);
        let all_read = mistakes.first.is_none();
        for mistake in check::mistakes(&arguments, all_read) {
            mistakes.note(Err(mistake));
        }
        mistakes.first.map_or(Ok(arguments), Err)
    }

    /// Reads what follows a name, up to the next comma.
    fn read_one(&mut self, name: Ident, input: ParseStream<'_>, function: &str) -> Result<(), Error> {
        let has_value = input.peek(Token![=]);
        if has_value {
            input.parse::<Token![=]>()?;
        }
        let tokens = up_to_comma(input)?;
        let known = ARGUMENTS.iter().find(|(known, _)| name == known);
        if name == CRATE {
            return self.set_crate(&name, tokens);
        }
        let Some(&(_, kind)) = known else {
            return Err(Error::new(name.span(), unknown::explain(&name.to_string(), function, &names())));
        };
        if self.settings.iter().any(|setting| setting.name == name) {
            return Err(Error::new(name.span(), format!("`{name}` is given twice")));
        }
        let setting = if has_value {
            Setting { value: value(&name, kind, &tokens)?, name, tokens }
        } else {
            // `retries(2)`, as a call of the setter.
            let value = kind.alone().filter(|_| tokens.is_empty());
            let value = value.ok_or_else(|| {
                Error::new(name.span(), format!("`{name}` needs a value: `{name} = {}`", kind.example()))
            })?;
            Setting { value, tokens: quote!(#name), name }
        };
        self.settings.push(setting);
        Ok(())
    }

    fn set_crate(&mut self, name: &Ident, tokens: TokenStream) -> Result<(), Error> {
        let given = Path::parse_mod_style.parse2(tokens);
        let path = given.map_err(|_| {
            Error::new(name.span(), "`crate` needs a path: `crate = my_crate::async_map_task`")
        })?;
        if self.krate.replace(path).is_some() {
            return Err(Error::new(name.span(), "`crate` is given twice"));
        }
        Ok(())
    }

    /// Returns the path to the main crate.
    pub(crate) fn crate_path(&self) -> TokenStream {
        self.krate.as_ref().map_or_else(|| quote!(::async_map_task), |path| quote!(#path))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    /// Returns `true` if items may have more than one attempt.
    pub(crate) fn has_retries(&self) -> bool {
        self.find("retries").is_some_and(|setting| setting.value != Value::Retries(0))
    }
}

/// Reads the value of a setting.
fn value(name: &Ident, kind: Kind, tokens: &TokenStream) -> Result<Value, Error> {
    if tokens.is_empty() {
        return Err(Error::new(
            name.span(),
            format!("`{name}` needs a value: `{name} = {}`", kind.example()),
        ));
    }
    let literal = syn::parse2::<Lit>(tokens.clone());
    let allowed = kind.allowed();
    let message = match &literal {
        Ok(literal) => match kind.read(literal) {
            Some(value) => return Ok(value),
            None => format!("{name} must be {allowed}, got {}", written(tokens)),
        },
        Err(_) => format!("{name} must be a literal, {allowed}, got {}", written(tokens)),
    };
    Err(Error::new_spanned(tokens, message))
}

fn up_to_comma(input: ParseStream<'_>) -> Result<TokenStream, Error> {
    let mut tokens = TokenStream::new();
    while !input.is_empty() && !input.peek(Token![,]) {
        tokens.extend([input.parse::<TokenTree>()?]);
    }
    Ok(tokens)
}

/// Mistakes that are reported together.
#[derive(Default)]
struct Mistakes {
    first: Option<Error>,
}

impl Mistakes {
    fn note(&mut self, result: Result<(), Error>) {
        let Err(mistake) = result else { return };
        match &mut self.first {
            Some(first) => first.combine(mistake),
            None => self.first = Some(mistake),
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::setters_in;
