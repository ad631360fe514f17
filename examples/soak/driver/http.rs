//! An HTTP connection that makes one request after the other.

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Result;

/// Closes the connection when it is dropped.
pub(super) struct Connection {
    requests: SendRequest<Empty<Bytes>>,
}

impl Connection {
    pub(super) async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { requests })
    }

    /// Returns the whole answer.
    pub(super) async fn get(&mut self, path: &str) -> Result<(StatusCode, Bytes)> {
        self.requests.ready().await?;
        let request = Request::get(path).header("host", "localhost");
        let request = request.body(Empty::new())?;
        let response = self.requests.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

/// Makes one request on a connection of its own.
pub(super) async fn get(address: &str, path: &str) -> Result<String> {
    match Connection::open(address).await?.get(path).await? {
        (StatusCode::OK, body) => Ok(String::from_utf8(body.into())?),
        (status, _) => Err(format!("{path}: {status}").into()),
    }
}
