//! An axum server that answers a constant: what HTTP alone costs, for `benches/peers`. `constant PORT`.

use axum::{Router, body::Bytes, extract::Path, http::header, routing::post};

const ANSWER: &str = r#"{"model_name":"mlp","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,10],"data":[1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0,9.0,1.0]}]}"#;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(8001);
    let answer =
        |Path(_model): Path<String>, _body: Bytes| async { ([(header::CONTENT_TYPE, "application/json")], ANSWER) };
    let router = Router::new().route("/v2/models/{model}/infer", post(answer));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, router).await
}
