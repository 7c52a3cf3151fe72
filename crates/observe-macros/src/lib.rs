//! The attribute `#[profile]`, which makes a function a section.

use proc_macro::TokenStream;
use quote::quote;
use syn::{ItemFn, LitStr, parse_macro_input};

/// Times a function under its own name or the given one: `#[profile]`, `#[profile("read the header")]`.
///
/// Of an `async` function, polls are work and the time between them is waiting.
#[proc_macro_attribute]
pub fn profile(name: TokenStream, function: TokenStream) -> TokenStream {
    let mut function = parse_macro_input!(function as ItemFn);
    let name = match name.is_empty() {
        true => LitStr::new(&function.sig.ident.to_string(), function.sig.ident.span()),
        false => parse_macro_input!(name as LitStr),
    };
    if let Some(constant) = &function.sig.constness {
        let told = syn::Error::new_spanned(constant, "a const function cannot be timed");
        return told.into_compile_error().into();
    }
    let (body, output) = (&function.block, &function.sig.output);
    let section = quote! {
        static SECTION: ::caudal_observe::Section = ::caudal_observe::Section::new(#name, ::core::module_path!());
    };
    let body = match function.sig.asyncness {
        None => quote!({ #section let _section = SECTION.enter(); #body }),
        Some(_) => {
            let typed = match output {
                syn::ReturnType::Default => quote!(()),
                syn::ReturnType::Type(_, output) if matches!(**output, syn::Type::ImplTrait(_)) => quote!(_),
                syn::ReturnType::Type(_, output) => quote!(#output),
            };
            // The type of the result is annotated, because `?` in the body needs it.
            quote!({
                #section
                SECTION.instrument(::std::boxed::Box::pin(async move { let given: #typed = #body; given })).await
            })
        }
    };
    *function.block = match syn::parse2(body) {
        Ok(body) => body,
        Err(error) => return error.into_compile_error().into(),
    };
    quote!(#function).into()
}
