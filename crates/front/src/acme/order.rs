//! One order, from whatever state it is in to the chain.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Identifier,
    NewOrder, Order, OrderStatus,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};

use super::challenges::{Challenges, Published};
use super::config::Config;
use super::error::AcmeError;
use super::secret::Secret;

/// The pace of questions slows down to this many times the first.
const POLL_SLOWEST: u32 = 8;

/// An order that was placed, as it is kept: with it a restart fetches the certificate instead of ordering another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) url: String,
    /// The certificate's.
    pub(super) key: Secret,
    pub(super) names: Vec<String>,
    /// Unix seconds.
    pub(super) placed: i64,
}

/// How an order is carried out.
#[derive(Debug)]
pub(super) struct Conduct {
    pub(super) challenges: Arc<Challenges>,
    pub(super) kind: ChallengeType,
    pub(super) poll: Duration,
}

/// Places a new order. Where the directory does not like what it should replace, it is placed without saying so.
pub(super) async fn place(
    account: &Account,
    config: &Config,
    replaces: Option<&CertificateIdentifier<'static>>,
) -> Result<Order, AcmeError> {
    let identifiers: Vec<Identifier> = config.domains.iter().map(|domain| identifier(domain)).collect();
    let order = || {
        let order = NewOrder::new(&identifiers);
        config.profile.as_ref().map_or(order, |profile| NewOrder::new(&identifiers).profile(profile))
    };
    let fault = |error| AcmeError::Directory { doing: "placing the order", error };
    if let Some(replaces) = replaces {
        match account.new_order(&order().replaces(replaces.clone())).await.map_err(fault) {
            // That must not keep us from a certificate.
            Err(error) if error.may_be_about_replacing() => {}
            result => return result,
        }
    }
    account.new_order(&order()).await.map_err(fault)
}

/// Brings `order` to its end, and returns the chain as PEM.
pub(super) async fn finish(
    order: &mut Order,
    pending: &Pending,
    conduct: &Conduct,
) -> Result<String, AcmeError> {
    let mut published = Published::new(Arc::clone(&conduct.challenges));
    let mut asked = false;
    let mut pause = conduct.poll;
    loop {
        match order.state().status {
            OrderStatus::Pending if !asked => {
                asked = true;
                authorize(order, conduct, &mut published).await?;
            }
            OrderStatus::Pending | OrderStatus::Processing => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(conduct.poll * POLL_SLOWEST);
                order.refresh().await.map_err(|error| doing("asking for the order", error))?;
            }
            OrderStatus::Ready => {
                let request = signing_request(pending)?;
                order
                    .finalize_csr(&request)
                    .await
                    .map_err(|error| doing("asking for the certificate", error))?;
            }
            OrderStatus::Valid => {
                let chain =
                    order.certificate().await.map_err(|error| doing("fetching the certificate", error))?;
                return chain.ok_or(AcmeError::OrderState(OrderStatus::Valid));
            }
            OrderStatus::Invalid => return Err(why_invalid(order).await),
        }
    }
}

/// Publishes the answers first, and only then says that they are there.
async fn authorize(order: &mut Order, conduct: &Conduct, published: &mut Published) -> Result<(), AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| doing("asking for an authorization", error))?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let domain = authorization.identifier().to_string();
        let kind = if authorization.challenges.iter().any(|challenge| challenge.r#type == conduct.kind) {
            conduct.kind.clone()
        } else {
            return Err(AcmeError::NoChallenge(domain));
        };
        let Some(mut challenge) = authorization.challenge(kind) else {
            return Err(AcmeError::NoChallenge(domain));
        };
        let answer = challenge.key_authorization();
        if conduct.kind == ChallengeType::TlsAlpn01 {
            published.tls_alpn(&domain, answer.digest().as_ref())?;
        } else {
            published.http(&challenge.token, answer.as_str());
        }
        // After an interruption the authority may be at it already, and refuses to be asked twice.
        if challenge.status == ChallengeStatus::Pending {
            challenge.set_ready().await.map_err(|error| doing("asking to be validated", error))?;
        }
    }
    Ok(())
}

/// The authority's own words are in the challenge that failed, and not always in the order.
async fn why_invalid(order: &mut Order) -> AcmeError {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        // What was fetched when it was still pending does not tell yet.
        if authorization.refresh().await.is_err() {
            continue;
        }
        let domain = authorization.identifier().to_string();
        for challenge in &authorization.challenges {
            if let Some(problem) = &challenge.error {
                let detail = problem.detail.clone().unwrap_or_else(|| problem.to_string());
                return AcmeError::Validation { domain, kind: kind_name(&challenge.r#type), detail };
            }
        }
    }
    AcmeError::OrderState(OrderStatus::Invalid)
}

fn signing_request(pending: &Pending) -> Result<Vec<u8>, AcmeError> {
    let mut params = CertificateParams::new(pending.names.clone())?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::from_pem(pending.key.pem())?;
    Ok(params.serialize_request(&key)?.der().to_vec())
}

fn identifier(domain: &str) -> Identifier {
    domain.parse().map_or_else(|_| Identifier::Dns(domain.to_owned()), Identifier::Ip)
}

fn kind_name(kind: &ChallengeType) -> &'static str {
    if *kind == ChallengeType::Http01 {
        "http-01"
    } else if *kind == ChallengeType::TlsAlpn01 {
        "tls-alpn-01"
    } else {
        "another challenge"
    }
}

fn doing(doing: &'static str, error: instant_acme::Error) -> AcmeError {
    AcmeError::Directory { doing, error }
}
