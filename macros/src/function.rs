//! The function: its parts, and the forms that cannot be a task.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Error, FnArg, Path, ReturnType, Safety, Signature, Type, TypeImplTrait, Visibility};

/// Types that the struct of a function with this name would hide.
const PRIMITIVES: &[&str] = &[
    "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "str", "u8", "u16", "u32",
    "u64", "u128", "usize",
];

/// A function. Its body is not parsed.
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
}

/// What the map function takes and returns.
pub(crate) struct Types {
    pub(crate) takes_context: bool,
    pub(crate) item: Type,
    pub(crate) output: Type,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self, Error> {
        let is_function = input.fork().parse::<TokenStream>()?.into_iter().any(is_fn_keyword);
        if !is_function {
            return Err(Error::new(Span::call_site(), "`#[map_task]` belongs to an `async fn`"));
        }
        let function = Self {
            attributes: input.call(Attribute::parse_outer)?,
            visibility: input.parse()?,
            signature: input.parse()?,
        };
        let body = input.parse::<TokenStream>()?;
        if !matches!(body.into_iter().next(), Some(TokenTree::Group(_))) {
            return Err(Error::new_spanned(&function.signature, "the function of a task needs a body"));
        }
        Ok(function)
    }
}

fn is_fn_keyword(token: TokenTree) -> bool {
    matches!(token, TokenTree::Ident(word) if word == "fn")
}

impl Function {
    /// The name without `r#`.
    pub(crate) fn name(&self) -> String {
        self.signature.ident.unraw().to_string()
    }

    /// Returns the types of the function, or everything that keeps it from being a task.
    pub(crate) fn types(&self) -> Result<Types, Error> {
        let signature = &self.signature;
        let mut mistakes = self.qualifiers();
        let mut types = Err(Vec::new());
        if let Some(receiver) = signature.receiver() {
            let message = "a method cannot be a task, because its struct cannot be inside of an `impl`: \
                           write a function, and pass `self` as a part of the item";
            mistakes.push(Error::new_spanned(receiver, message));
        } else {
            types = item(signature).and_then(|(takes_context, item)| {
                Ok(Types { takes_context, item, output: output(signature)? })
            });
        }
        let mut forms = Forms::default();
        forms.visit_signature_mut(&mut signature.clone());
        if signature.receiver().is_none() {
            mistakes.extend(forms.found);
        }
        match types {
            Ok(types) if mistakes.is_empty() => Ok(types),
            other => {
                mistakes.extend(other.err().into_iter().flatten());
                let joined = mistakes.into_iter().reduce(|mut all, mistake| {
                    all.combine(mistake);
                    all
                });
                Err(joined.unwrap_or_else(|| Error::new(Span::call_site(), "this function cannot be a task")))
            }
        }
    }

    /// Checks the keywords and the name.
    fn qualifiers(&self) -> Vec<Error> {
        let Signature { constness, asyncness, safety, abi, fn_token, variadic, ident, .. } = &self.signature;
        let mut mistakes = Vec::new();
        if let Some(constness) = constness {
            mistakes.push(Error::new_spanned(constness, "a `const fn` cannot be a task"));
        } else if asyncness.is_none() {
            mistakes.push(Error::new_spanned(fn_token, "the function of a task must be `async`"));
        }
        if !matches!(safety, Safety::Default) {
            mistakes.push(Error::new_spanned(
                safety,
                "an unsafe function cannot be a task: its caller would be the run",
            ));
        }
        if let Some(abi) = abi {
            mistakes.push(Error::new_spanned(abi, "an `extern fn` cannot be a task"));
        }
        if let Some(variadic) = variadic {
            mistakes.push(Error::new_spanned(variadic, "a variadic function cannot be a task"));
        }
        if PRIMITIVES.iter().any(|name| ident == name) {
            let message =
                format!("the task of a function `{ident}` would hide the type `{ident}`: name it otherwise");
            mistakes.push(Error::new_spanned(ident, message));
        }
        mistakes
    }
}

/// Returns the type of the item, and `true` if the context comes before it.
fn item(signature: &Signature) -> Result<(bool, Type), Vec<Error>> {
    let types = signature.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(argument) => Some(Type::clone(&argument.ty)),
        FnArg::Receiver(_) => None,
    });
    let types: Vec<Type> = types.collect();
    match types.as_slice() {
        [] => {
            let message = "the function of a task takes an item: add an argument";
            Err(vec![Error::new(signature.paren_token.span.join(), message)])
        }
        [only] if is_context(only) => {
            let message = "the function of a task takes an item: add an argument after the context";
            Err(vec![Error::new_spanned(only, message)])
        }
        [item] => Ok((false, item.clone())),
        [context, item] if is_context(context) => Ok((true, item.clone())),
        _ => {
            let message = "the function of a task takes one item, or an `ItemContext` and one item: for several \
                           values, take a tuple";
            Err(vec![Error::new_spanned(&signature.inputs, message)])
        }
    }
}

fn is_context(argument: &Type) -> bool {
    matches!(argument, Type::Path(argument) if argument.path.segments.last().is_some_and(|last| last.ident == "ItemContext"))
}

fn output(signature: &Signature) -> Result<Type, Vec<Error>> {
    match &signature.output {
        ReturnType::Type(_, output) => Ok(Type::clone(output)),
        ReturnType::Default => {
            let message = "the function of a task must return a `Result`: if no item can fail, `Result<(), Infallible>`";
            Err(vec![Error::new_spanned(signature, message)])
        }
    }
}

/// Finds types that cannot be written in the functions of the struct.
#[derive(Default)]
struct Forms {
    found: Vec<Error>,
}

impl VisitMut for Forms {
    fn visit_type_impl_trait_mut(&mut self, node: &mut TypeImplTrait) {
        let message = "the function of a task cannot have `impl Trait`, because the type is also in the signature of \
                       `run`: use a type parameter for an argument, and name the type of an output";
        self.found.push(Error::new_spanned(&*node, message));
    }

    fn visit_path_mut(&mut self, path: &mut Path) {
        if path.segments.first().is_some_and(|first| first.ident == "Self") {
            let message = "an associated function cannot be a task, because its struct cannot be inside of an `impl`: \
                           write a function beside the `impl`";
            self.found.push(Error::new_spanned(&*path, message));
        }
        visit_mut::visit_path_mut(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::ToTokens;

    /// The messages of all mistakes, or none.
    fn mistakes(function: &str) -> Vec<String> {
        let types = syn::parse_str::<Function>(function).and_then(|function| function.types());
        types.err().into_iter().flatten().map(|mistake| mistake.to_string()).collect()
    }

    #[test]
    fn a_function_that_can_be_a_task_has_its_types() {
        let table = [
            ("async fn f(x: u8) -> Result<u8, u8> {}", false, "u8", "Result<u8, u8>"),
            ("async fn f(mut x: &[u8]) -> io::Result<()> {}", false, "&[u8]", "io::Result<()>"),
            ("async fn f((a, b): (u8, u8)) -> R {}", false, "(u8, u8)", "R"),
            ("/// A.\n#[inline] pub(in a::b) async fn f<T: A>(x: T) -> R where T: B {}", false, "T", "R"),
            ("async fn f(cx: ItemContext, x: u8) -> R {}", true, "u8", "R"),
            ("async fn f(_: ::a::ItemContext, x: u8,) -> R {}", true, "u8", "R"),
            ("async fn f(x: Context) -> R {}", false, "Context", "R"),
            ("async fn r#move(x: Self_) -> R {}", false, "Self_", "R"),
        ];
        let text = |code: Type| code.into_token_stream().to_string();
        let same =
            |found: Type, expected: &str| assert_eq!(text(found), text(syn::parse_str(expected).unwrap()));
        for (function, takes_context, item, output) in table {
            let types = syn::parse_str::<Function>(function).unwrap().types();
            let types = types.unwrap_or_else(|error| panic!("{function}: {error}"));
            assert_eq!(types.takes_context, takes_context, "{function}");
            same(types.item, item);
            same(types.output, output);
        }
    }

    #[test]
    fn each_form_that_cannot_be_a_task_is_explained() {
        let table = [
            ("fn f(x: u8) -> R {}", "must be `async`"),
            ("const fn f(x: u8) -> R {}", "`const fn`"),
            ("const async fn f(x: u8) -> R {}", "`const fn`"),
            ("async unsafe fn f(x: u8) -> R {}", "its caller would be the run"),
            ("async extern \"C\" fn f(x: u8) -> R {}", "`extern fn`"),
            ("async fn f() -> R {}", "takes an item: add an argument"),
            ("async fn f(cx: ItemContext) -> R {}", "add an argument after the context"),
            ("async fn f(x: u8, cx: ItemContext) -> R {}", "take a tuple"),
            ("async fn f(cx: ItemContext, x: u8, y: u8) -> R {}", "take a tuple"),
            ("async fn f(x: u8) {}", "must return a `Result`"),
            ("async fn f(&self) -> R {}", "a method cannot be a task"),
            ("async fn f(self: Arc<Self>, x: u8) -> R {}", "a method cannot be a task"),
            ("async fn f(x: Self) -> R {}", "an associated function"),
            ("async fn f(x: u8) -> Result<Vec<Self::Item>, E> {}", "an associated function"),
            ("async fn f(x: impl A) -> R {}", "`impl Trait`"),
            ("async fn f(x: u8) -> Result<Box<impl A>, E> {}", "`impl Trait`"),
            ("async fn f(x: u8) -> R;", "needs a body"),
            ("async fn str(x: u8) -> R {}", "would hide the type `str`"),
            ("struct F;", "belongs to an `async fn`"),
            ("mod f { fn g() {} }", "belongs to an `async fn`"),
            ("impl F { async fn f(x: u8) -> R {} }", "belongs to an `async fn`"),
            ("const F: u8 = 1;", "belongs to an `async fn`"),
        ];
        for (function, part) in table {
            let found = mistakes(function);
            assert!(found.len() == 1 && found[0].contains(part), "{function}: {found:?}");
        }
    }

    #[test]
    fn all_mistakes_of_a_function_are_reported_together() {
        let found = mistakes("const fn bool(a: impl A, b: u8) {}");
        assert_eq!(found.len(), 4, "{found:?}");
    }
}
