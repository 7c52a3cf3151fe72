//! `llm`: asks a language model, of whoever speaks OpenAI's `/chat/completions`.
//!
//! What may be spent is set aside before a word is sent: no prompt has more tokens than bytes, and no answer more than it
//! may. What was spent is counted from what the provider says, also where the answer came to nothing. Keys come from the
//! environment of the server and from nowhere else.

mod answer;
mod json;
mod length;
mod prices;
mod providers;
mod question;
mod schema;
mod settings;
mod spending;
mod stream;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use caudal_flow::{Action, Answer, Call, Fault, Registry, Started, StepError, Value};

use self::{answer::Said, providers::Endpoint, question::Question, settings::Settings, spending::Spending};
pub use self::{
    prices::{Price, Prices},
    providers::{Llm, Provider},
};
use crate::{
    net::{Ask, Got, Net, REASON_BYTES, Refusal, Trust, refusal},
    plain::{add, leaf},
};

const ABOUT: &str = "Calls a language model and returns its answer: text, or with output_schema a value that fits the \
                    schema. `model` is provider:name, such as openai:gpt-4o-mini; each provider's key comes from the \
                    server's environment (OPENAI_API_KEY). The input is the user's message: text, any value as JSON, \
                    or a list of messages.";

/// The largest answer, in bytes, with all that stands around its words.
const LARGEST: usize = 16 << 20;

/// How often a step that waits for budget looks whether there is some.
const LOOK: Duration = Duration::from_millis(20);

/// A model that is asked.
struct Ai {
    said: Value,
    settings: Settings,
    schema: Option<schema::Schema>,
    world: Arc<World>,
}

struct World {
    llm: Llm,
    net: Net,
}

/// Adds `llm`.
pub(crate) fn register(registry: &mut Registry, llm: &Llm, net: &Net) {
    let world = Arc::new(World { llm: llm.clone(), net: net.clone() });
    let make = move |said: &Value, settings: Settings| {
        settings.check()?;
        let schema = settings.output_schema.as_ref().map(|said| schema::Schema::new(said, settings.structured()));
        let schema = schema.transpose()?.flatten();
        Ok(Ai { said: said.clone(), settings, schema, world: Arc::clone(&world) })
    };
    add(registry, "llm", leaf::<Settings, _>(ABOUT, make));
}

impl Action for Ai {
    fn identity(&self) -> Value {
        Value::list([Value::text("llm"), self.said.clone()])
    }

    fn start(&self, call: Call) -> Started<'_> {
        Started::Later(Box::pin(async move { self.ask(&call).await }))
    }
}

impl Ai {
    async fn ask(&self, call: &Call) -> Answer {
        let endpoint = self.world.llm.endpoint(&self.settings.model)?;
        let (question, mut spending) = self.reserve(&endpoint, call).await?;
        let limit = self.settings.time(call.deadline, Instant::now());
        let answer = self.answer(call, &endpoint, &question, &mut spending);
        let said = tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
            let error = StepError::new(Fault::TimedOut, format!("{} did not answer within {limit:?}", endpoint.name));
            Err(error.hint("raise timeout, or let it say less (max_tokens)"))
        })?;
        self.value(&endpoint, &said, question.most().1)
    }

    /// The question, and what it may cost set aside. Where other steps hold what is left, it waits until they are done.
    async fn reserve(&self, endpoint: &Endpoint, call: &Call) -> Result<(Question, Spending), StepError> {
        loop {
            let question = Question::new(&self.settings, self.schema.as_ref(), endpoint, call)?;
            match Spending::reserve(call, question.most(), endpoint.price) {
                Ok(spending) => return Ok((question, spending)),
                Err(error) if call.deadline.passed(Instant::now()) => return Err(error),
                Err(_) if call.may_reserve_later(Spending::most(question.most(), endpoint.price)) => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks, and reads what is said to its end.
    async fn answer(
        &self,
        call: &Call,
        endpoint: &Endpoint,
        question: &Question,
        spending: &mut Spending,
    ) -> Result<Said, StepError> {
        let ask = Ask { body: question.body(), ..endpoint.ask(&call.key())? };
        let going = |going: bool| if going { spending.begin() } else { spending.nothing() };
        let got = self.world.net.send(&ask, Trust::Server, going).await?;
        if let Some(refused) = refused(&endpoint.name, &got) {
            spending.nothing();
            return Err(refused.because(&got.body.beginning(REASON_BYTES).await));
        }
        let Got { status, headers, body } = got;
        let streamed =
            headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        tracing::debug!(model = endpoint.model, %status, streamed, "a language model answers");
        match streamed {
            true => stream::read(body, &endpoint.name, call, spending).await,
            false => answer::read(&body.whole(LARGEST).await?, &endpoint.name, spending),
        }
    }

    /// What the words come to.
    fn value(&self, endpoint: &Endpoint, said: &Said, most: u64) -> Answer {
        if said.cut {
            let message =
                format!("{} reached the limit of {most} tokens before its answer was complete", endpoint.name);
            let hint = match self.settings.tokens() {
                Some(_) => "raise max_tokens, or ask for less",
                None => "set max_tokens, raise the budget, or ask for less",
            };
            return Err(StepError::new(Fault::Output, message).hint(hint).for_good());
        }
        match &self.schema {
            None => Ok(Value::text(&*said.text)),
            Some(schema) => schema.read(&said.text),
        }
    }
}

fn refused(name: &str, got: &Got) -> Option<Refusal> {
    // Nobody is sent on with a key in hand.
    refusal(name, got).or_else(|| got.status.is_redirection().then(|| Refusal::sends_on(name)))
}
