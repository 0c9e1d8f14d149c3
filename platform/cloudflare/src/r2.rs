//! The object store on R2.

use hookmill_core::objects::{LISTED, ObjectError, Objects, StoredObject};
use worker::{Bucket, Env, Result};

use crate::{text, timestamp};

/// A bucket.
pub struct R2(Bucket);

impl R2 {
    /// The bucket of this binding.
    ///
    /// # Errors
    ///
    /// If the Worker has no such binding.
    pub fn new(env: &Env, binding: &str) -> Result<Self> {
        env.bucket(binding).map(Self)
    }

    async fn read(&self, key: &str) -> Result<Option<Vec<u8>>> {
        match self.0.get(key).execute().await? {
            None => Ok(None),
            Some(object) => match object.body() {
                None => Ok(None),
                Some(body) => body.bytes().await.map(Some),
            },
        }
    }
}

fn failed(error: worker::Error) -> ObjectError {
    ObjectError(text(&error))
}

impl Objects for R2 {
    #[worker::send]
    async fn put(&self, key: &str, body: &[u8]) -> std::result::Result<(), ObjectError> {
        self.0.put(key, body.to_vec()).execute().await.map(drop).map_err(failed)
    }

    #[worker::send]
    async fn get(&self, key: &str) -> std::result::Result<Option<Vec<u8>>, ObjectError> {
        self.read(key).await.map_err(failed)
    }

    #[worker::send]
    async fn delete(&self, key: &str) -> std::result::Result<(), ObjectError> {
        self.0.delete(key).await.map_err(failed)
    }

    #[worker::send]
    async fn list(&self, after: &str) -> std::result::Result<Vec<StoredObject>, ObjectError> {
        let limit = u32::try_from(LISTED).unwrap_or(u32::MAX);
        let listed =
            self.0.list().start_after(after).limit(limit).execute().await.map_err(failed)?;
        let object = |object: worker::Object| StoredObject {
            key: object.key(),
            stored_at: timestamp(&object.uploaded()),
        };
        Ok(listed.objects().into_iter().map(object).collect())
    }
}
