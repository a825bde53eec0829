//! The generated code.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{GenericArgument, GenericParam, PathArguments, Type};

use crate::arguments::Arguments;
use crate::function::{Function, Types};
use crate::lifetimes;

/// Returns the function as it was and, beside it, the struct with its associated functions. After a mistake in the
/// arguments, the struct has the default settings, so that its uses are no further errors.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = match syn::parse2::<Function>(item.clone()) {
        Ok(function) => function,
        Err(mistake) => return beside(&item, &mistake.into_compile_error()),
    };
    let (arguments, mistake) = match Arguments::parse(arguments, &function.name()) {
        Ok(arguments) => (arguments, TokenStream::new()),
        Err(mistake) => (Arguments::default(), mistake.into_compile_error()),
    };
    let task = match function.types() {
        Ok(types) => task(&arguments, &function, types),
        Err(mistake) => mistake.into_compile_error(),
    };
    beside(&item, &quote!(#task #mistake))
}

fn beside(item: &TokenStream, generated: &TokenStream) -> TokenStream {
    quote!(#item #generated)
}

/// Returns the struct.
fn task(arguments: &Arguments, function: &Function, types: Types) -> TokenStream {
    let krate = arguments.crate_path();
    let (ident, visibility) = (&function.signature.ident, &function.visibility);
    let name = match arguments.find("name") {
        Some(_) => TokenStream::new(),
        None => {
            let suffix = format!("::{}", function.name());
            quote!(.name(::core::concat!(::core::module_path!(), #suffix)))
        }
    };
    let settings = arguments.settings.iter().filter_map(|setting| setting.call());
    let run = run(arguments, function, types);
    let deprecated = function.attributes.iter().filter(|attribute| attribute.path().is_ident("deprecated"));
    let doc = documentation(arguments, &ident.to_string());
    quote! {
        #[doc = #doc]
        #(#deprecated)*
        #[allow(
            dead_code,
            missing_copy_implementations,
            missing_debug_implementations,
            non_camel_case_types,
            clippy::exhaustive_structs,
            reason = "it has the name of the function, and no value"
        )]
        #visibility struct #ident {}

        #[allow(
            dead_code,
            deprecated,
            clippy::impl_trait_in_params,
            clippy::multiple_bound_locations,
            reason = "the function may be deprecated, and a part of this unused; `run` has bounds beside the caller's"
        )]
        impl #ident {
            /// Returns the task: the settings of the attribute.
            #visibility fn task() -> &'static #krate::AsyncMapTask {
                static TASK: ::std::sync::LazyLock<#krate::AsyncMapTask> = ::std::sync::LazyLock::new(|| {
                    #krate::__macros::built(#krate::AsyncMapTask::builder() #name #(#settings)*)
                });
                &TASK
            }

            /// Takes the items of a list or any other iterator. Pass the function next, then the options of the run.
            #visibility fn over<I: #krate::plan::ItemList>(
                items: I,
            ) -> #krate::__macros::OverItems<I::Iter> {
                Self::task().over(items)
            }

            #run
        }
    }
}

/// Returns the function `run`, with the generics of the map function.
fn run(arguments: &Arguments, function: &Function, types: Types) -> TokenStream {
    let krate = arguments.crate_path();
    let (ident, visibility) = (&function.signature.ident, &function.visibility);
    let Types { takes_context, mut item, mut output } = types;
    let generics = &function.signature.generics;
    let lifetimes = lifetimes::name_elided(generics, &mut item, &mut output);
    let parameters = generics.params.iter();
    let implied = lifetimes::implied_bounds(generics, &item);
    let bounds = generics.where_clause.iter().flat_map(|clause| &clause.predicates).chain(&implied);
    let bounds: Vec<_> = bounds.collect();
    let bounds = if bounds.is_empty() { TokenStream::new() } else { quote!(where #(#bounds,)*) };
    let names: Vec<&Ident> = generics
        .params
        .iter()
        .filter_map(|parameter| match parameter {
            GenericParam::Type(parameter) => Some(&parameter.ident),
            GenericParam::Const(parameter) => Some(&parameter.ident),
            GenericParam::Lifetime(_) => None,
        })
        .collect();
    let turbofish = if names.is_empty() { TokenStream::new() } else { quote!(::<#(#names),*>) };
    let result = result(&krate, &output);
    // Without retries, the items need not be `Clone`.
    let map = match (takes_context, arguments.has_retries()) {
        (true, _) => "map_with_context",
        (false, true) => "map",
        (false, false) => "map_once",
    };
    let span = span_of_errors(&item, &output, map);
    let map = Ident::new(map, span);
    let future = quote_spanned!(span=> impl ::core::future::Future<Output = #result>);
    // Hygienic, because the function may be named `items`.
    let items = Ident::new("items", Span::mixed_site());
    let body = quote_spanned!(span=> Self::over(#items).#map(#ident #turbofish));
    quote! {
        /// Runs the function over the items of a list or any other iterator, with the settings of the task.
        ///
        /// # Errors
        ///
        /// Awaiting the run returns an error if the run did not succeed. It contains everything that was finished.
        #visibility fn run<#(#lifetimes,)* #(#parameters),*>(
            #items: impl ::core::iter::IntoIterator<Item = #item>,
        ) -> #future
        #bounds
        {
            #body
        }
    }
}

/// Returns the type of the result of a run. `Result<T, E>` is written out, for the documentation; the types of an alias are
/// those that it stands for.
fn result(krate: &TokenStream, output: &Type) -> TokenStream {
    if let Some([value, error]) = arguments_of_result(output) {
        return quote! {
            ::core::result::Result<
                #krate::MapTaskResult<#value, #error>,
                #krate::MapTaskError<#value, #error>,
            >
        };
    }
    quote!(<#output as #krate::__macros::MapOutput>::Result)
}

/// Returns the place of errors about the types of the function. The compiler reports a bound that does not hold at the call of
/// `map` and at the future that is returned. At one place, the two are one error.
///
/// The items may not be `Clone`, unless `map_once` takes them. The output may be no `Result`, unless its name says so.
fn span_of_errors(item: &Type, output: &Type, map: &str) -> Span {
    let is_result = matches!(output, Type::Path(output) if output.path.segments.last().is_some_and(|last| {
        last.ident.to_string().ends_with("Result")
    }));
    let place = if is_result && map != "map_once" { item.span() } else { output.span() };
    // Generated code has the edition of this package, 2024, in which a future captures the lifetimes of the items. Code with
    // the span of the caller's token would have the edition of the caller.
    Span::call_site().located_at(place)
}

fn arguments_of_result(output: &Type) -> Option<[&Type; 2]> {
    let Type::Path(path) = output else { return None };
    let last = path.path.segments.last().filter(|last| path.qself.is_none() && last.ident == "Result")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    let mut types = arguments.args.iter().map(|argument| match argument {
        GenericArgument::Type(argument) => Some(argument),
        _ => None,
    });
    match (types.next(), types.next(), types.next()) {
        (Some(Some(value)), Some(Some(error)), None) => Some([value, error]),
        _ => None,
    }
}

/// Returns the documentation of the struct. That of the function stays at the function.
fn documentation(arguments: &Arguments, function: &str) -> String {
    let set: Vec<String> = arguments.settings.iter().map(|setting| format!("`{}`", setting.text())).collect();
    let settings = if set.is_empty() { "the defaults".to_owned() } else { set.join(", ") };
    format!(
        "The task of the function [`{function}`](fn@{function}).\n\nIts settings are {settings}. `run` runs the function over \
         items. `over` returns a run that takes options, and `task` the task."
    )
}
