//! What the handlers of groups share: from a request to the coordinators of its groups, each core asked once.

use std::collections::BTreeMap;

use coord::group::{Answer, Request as GroupRequest};
use net::error_code::ErrorCode;
use rt::CoreId;

use super::{Request, Unanswerable};
use crate::groups::request::read;
use crate::groups::{self, GroupAsk, GroupPart};
use crate::shard::join::join_all;
use crate::shard::mail;

type ByOwner = BTreeMap<CoreId, Vec<GroupPart>>;

/// The answer for each group of the request, in its order.
pub async fn ask(request: &Request<'_>) -> Result<Vec<Answer>, Unanswerable> {
    let (by_owner, codes) = plan(request)?;
    let found = ask_owners(request, by_owner).await;
    let mut answers: Vec<Option<Answer>> = Vec::new();
    answers.resize_with(codes.len(), || None);
    for (place, answer) in found {
        answers[place] = answer;
    }
    refuse_the_rest(request, answers, &codes)
}

/// Which core to ask for which groups, and what is answered for a group where nobody answers. What was decoded ends
/// here: members wait by the thousand, and their requests are theirs to keep.
fn plan(request: &Request<'_>) -> Result<(ByOwner, Vec<ErrorCode>), Unanswerable> {
    let requests = read(&request.header, request.body)?;
    let mut by_owner = ByOwner::new();
    let mut codes = Vec::with_capacity(requests.len());
    for (place, one) in requests.iter().enumerate() {
        codes.push(match groups::locate(request.shard, one.group().unwrap_or_default()) {
            Ok((partition, owner)) => {
                by_owner.entry(owner).or_default().push(GroupPart { place, partition });
                ErrorCode::NotCoordinator
            }
            Err(code) => code,
        });
    }
    Ok((by_owner, codes))
}

/// Only where something was not answered is the request read again.
fn refuse_the_rest(
    request: &Request<'_>,
    answers: Vec<Option<Answer>>,
    codes: &[ErrorCode],
) -> Result<Vec<Answer>, Unanswerable> {
    if answers.iter().all(Option::is_some) {
        return Ok(answers.into_iter().flatten().collect());
    }
    let requests = read(&request.header, request.body)?;
    let refused = |((answer, one), code): ((Option<Answer>, GroupRequest<'_>), &ErrorCode)| {
        answer.unwrap_or_else(|| one.refused(*code))
    };
    Ok(answers.into_iter().zip(requests).zip(codes).map(refused).collect())
}

/// The answer to a request about one group.
pub async fn ask_one(request: &Request<'_>) -> Result<Answer, Unanswerable> {
    ask(request).await?.pop().ok_or(Unanswerable)
}

/// Asks every partition of groups for its list; None from those that did not answer.
pub async fn ask_all(request: &Request<'_>) -> Vec<Option<Answer>> {
    let homes = groups::homes(request.shard);
    let mut answers: Vec<Option<Answer>> = Vec::new();
    answers.resize_with(homes.len(), || None);
    let mut by_owner = ByOwner::new();
    for (place, (partition, owner)) in homes.into_iter().enumerate() {
        by_owner.entry(owner).or_default().push(GroupPart { place, partition });
    }
    for (place, answer) in ask_owners(request, by_owner).await {
        answers[place] = answer;
    }
    answers
}

async fn ask_owners(request: &Request<'_>, by_owner: ByOwner) -> Vec<(usize, Option<Answer>)> {
    let asks = by_owner.into_iter().map(|(owner, parts)| {
        let ask = GroupAsk { frame: request.frame.clone(), client: request.client, parts };
        request.shard.ask(owner, mail::Ask::Group(ask))
    });
    let answers = join_all(asks).await.into_iter().flat_map(|answer| match answer {
        mail::Answer::Group(found) => found,
        _ => Vec::new(),
    });
    answers.map(|found| (found.place, found.answer)).collect()
}
