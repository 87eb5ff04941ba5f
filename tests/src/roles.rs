//! A database set up with the roles of docs/SECURITY.md: by the SQL that is printed there, under names of its own.

use std::str::FromStr;

use sqlx::{Connection, Executor, PgConnection, postgres::PgConnectOptions};

use crate::{
    service::{Settings, run_command},
    stack::{Database, in_a_thread, random_word, run_as_admin},
};

const DOCUMENT: &str = include_str!("../../docs/SECURITY.md");

/// A database whose owner, service and readers are different roles; all are dropped after the test.
#[derive(Debug)]
pub struct Roles {
    /// Its pool is the superuser's.
    pub database: Database,
    names: Names,
}

/// Roles are dropped when nothing depends on them any more: after the database.
#[derive(Debug)]
struct Names(String);

impl Roles {
    /// Does as docs/SECURITY.md says, with the real binary.
    ///
    /// # Panics
    /// If anything of it fails.
    pub async fn create() -> Self {
        let roles = Self::before_migrating().await;
        let migrated = run_command(&["migrate"], &roles.settings_of_owner()).await;
        assert!(migrated.status.success(), "migrate as the owner: {migrated:?}");
        roles.run(&roles.owner_url(), &documented_sql()[1]).await;
        roles
    }

    /// Lets a tenant in, as the document says; URL of its role.
    ///
    /// # Panics
    /// If anything of it fails.
    pub async fn let_tenant_in(&self) -> String {
        for statement in &documented_sql()[2] {
            run_as_admin(&self.names.in_place_of_printed(statement)).await;
        }
        self.run(&self.owner_url(), &documented_sql()[3]).await;
        self.url_of("acme_reader")
    }

    /// The first half of it: roles and an empty database.
    pub async fn before_migrating() -> Self {
        let names = Names(random_word());
        for statement in &documented_sql()[0] {
            run_as_admin(&names.in_place_of_printed(statement)).await;
        }
        Self {
            database: Database::adopt(&names.of("logs")),
            names,
        }
    }

    /// URL of the role that migrates.
    #[must_use]
    pub fn owner_url(&self) -> String {
        self.url_of("log_writer_owner")
    }

    /// URL of the service.
    #[must_use]
    pub fn ingest_url(&self) -> String {
        self.url_of("log_writer_ingest")
    }

    /// URL of people and programs.
    #[must_use]
    pub fn reader_url(&self) -> String {
        self.url_of("log_reader")
    }

    /// URL of who reads the audit trail.
    #[must_use]
    pub fn auditor_url(&self) -> String {
        self.url_of("log_auditor")
    }

    /// Name here of what is called so in the document.
    #[must_use]
    pub fn name_of(&self, printed: &str) -> String {
        self.names.of(printed)
    }

    /// For commands of the owner.
    #[must_use]
    pub fn settings_of_owner(&self) -> Settings {
        Settings::default().set("database.url", &self.owner_url())
    }

    /// Runs statements in this database as the role of a URL; names as in the document.
    ///
    /// # Panics
    /// If one of them fails.
    pub async fn run(&self, url: &str, statements: &[impl AsRef<str>]) {
        for statement in statements {
            if let Err(error) = self.attempt(url, statement.as_ref()).await {
                panic!("{}: {error}", statement.as_ref());
            }
        }
    }

    /// Runs one statement as the role of a URL; names as in the document.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn attempt(&self, url: &str, statement: &str) -> Result<(), sqlx::Error> {
        let options = PgConnectOptions::from_str(url).expect("a URL");
        let mut connection = PgConnection::connect_with(&options).await?;
        connection
            .execute(self.names.in_place_of_printed(statement).as_str())
            .await?;
        connection.close().await
    }

    fn url_of(&self, role: &str) -> String {
        let mut url = reqwest::Url::parse(self.database.url()).expect("not a URL");
        url.set_username(&self.names.of(role))
            .expect("a user name cannot be set");
        url.to_string()
    }
}

const ROLES: [&str; 5] = [
    "log_writer_owner",
    "log_writer_ingest",
    "log_reader",
    "log_auditor",
    "acme_reader",
];

impl Names {
    fn of(&self, printed: &str) -> String {
        format!("lwtest_{printed}_{}", self.0)
    }

    /// Roles and databases of tests that run side by side share one server.
    fn in_place_of_printed(&self, sql: &str) -> String {
        let sql = ROLES
            .iter()
            .fold(sql.to_owned(), |sql, role| sql.replace(role, &self.of(role)));
        sql.replace("database logs", &format!("database {}", self.of("logs")))
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let statements = ROLES.map(|role| format!("drop role if exists {}", self.of(role)));
        in_a_thread(async move {
            for statement in statements {
                run_as_admin(&statement).await;
            }
        });
    }
}

/// The statements of each block of SQL in the section about PostgreSQL.
fn documented_sql() -> Vec<Vec<String>> {
    let section = DOCUMENT.split("\n## PostgreSQL\n").nth(1).expect("a section");
    let section = section.split("\n## ").next().expect("its end");
    let blocks = section.split("```sql\n").skip(1);
    blocks
        .map(|block| {
            let code = block.split("```").next().expect("an end");
            let lines: Vec<&str> = code
                .lines()
                .map(|line| line.split(" -- ").next().unwrap_or(line))
                .collect();
            let statements = lines.join("\n");
            let statements = statements.split(";\n").map(str::trim);
            statements
                .filter(|statement| !statement.is_empty())
                .map(str::to_owned)
                .collect()
        })
        .collect()
}
