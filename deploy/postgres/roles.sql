-- The three roles of Walkey, none of them a superuser, and what each may do in one database:
--
--   owner        owns the tables and the publication: `api migrate`, `invalidator setup`
--   api          reads and writes rows: `api serve`
--   invalidator  may replicate, and can't read a single table: `invalidator run`, `invalidator doctor`
--
-- Run it by psql (15 or later) in the database that Walkey uses, before the first migration: as a superuser, as the administrator of a
-- managed server, or from Postgres 16 on as the owner of the database with CREATEROLE and REPLICATION.
-- It can be repeated: roles, passwords and grants are brought to what is written here.
--
--   OWNER_PASSWORD=… API_PASSWORD=… INVALIDATOR_PASSWORD=… psql -X -d "$DATABASE_URL" -f roles.sql
--
-- Names other than walkey_owner, walkey_api and walkey_invalidator: -v owner=… -v api=… -v invalidator=…
-- A role whose password is not given keeps what it has, so that one may log in by certificate alone.

\set ON_ERROR_STOP on
\set QUIET on
\if :{?owner}
\else
\set owner walkey_owner
\endif
\if :{?api}
\else
\set api walkey_api
\endif
\if :{?invalidator}
\else
\set invalidator walkey_invalidator
\endif
-- Passwords come from the environment, since a command line can be read by every user of the machine.
\getenv owner_password OWNER_PASSWORD
\getenv api_password API_PASSWORD
\getenv invalidator_password INVALIDATOR_PASSWORD

BEGIN;

SET LOCAL client_min_messages = warning;
SET LOCAL password_encryption = 'scram-sha-256';
-- Statements with a password stay out of the server's log, as far as the role may say so.
SELECT set_config(name, value, true)
FROM (VALUES ('log_statement', 'none'), ('log_min_error_statement', 'panic'), ('log_min_duration_statement', '-1')) AS quiet(name, value)
WHERE (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
\g /dev/null

SELECT format('CREATE ROLE %I', name)
FROM (VALUES (:'owner'), (:'api'), (:'invalidator')) AS wanted(name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

-- Each attribute is only set where it is not as it should be: a managed server's administrator may not touch all of them.
SELECT format('ALTER ROLE %I %s', rolname, attribute)
FROM pg_roles, LATERAL (VALUES
	('LOGIN', rolcanlogin),
	('NOCREATEDB', NOT rolcreatedb),
	('NOCREATEROLE', NOT rolcreaterole),
	('NOSUPERUSER', NOT rolsuper),
	('NOBYPASSRLS', NOT rolbypassrls),
	(CASE rolname WHEN :'invalidator' THEN 'REPLICATION' ELSE 'NOREPLICATION' END, rolreplication = (rolname = :'invalidator'))
) AS wanted(attribute, as_it_is)
WHERE rolname IN (:'owner', :'api', :'invalidator') AND NOT as_it_is
	-- Amazon RDS has a role in place of the attribute.
	AND NOT (attribute = 'REPLICATION' AND EXISTS (SELECT FROM pg_roles AS rds WHERE rds.rolname = 'rds_replication'))
\gexec
SELECT format('GRANT rds_replication TO %I', :'invalidator') WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication')
\gexec

\if :{?owner_password}
ALTER ROLE :"owner" PASSWORD :'owner_password';
\endif
\if :{?api_password}
ALTER ROLE :"api" PASSWORD :'api_password';
\endif
\if :{?invalidator_password}
ALTER ROLE :"invalidator" PASSWORD :'invalidator_password';
\endif

-- CREATE on the database is what making a publication takes, CREATE on the schema what making tables takes.
SELECT format('GRANT CONNECT ON DATABASE %I TO %I, %I, %I', current_database(), :'owner', :'api', :'invalidator')
\gexec
SELECT format('GRANT CREATE ON DATABASE %I TO %I', current_database(), :'owner')
\gexec
GRANT USAGE, CREATE ON SCHEMA public TO :"owner";
GRANT USAGE ON SCHEMA public TO :"api";

-- Tables that the owner makes from now on, and those that there are. Who is not the owner has to be a member to say so; the membership
-- goes again below.
SELECT format('GRANT %I TO CURRENT_USER', :'owner') WHERE NOT pg_has_role(:'owner', 'USAGE')
\gexec
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"api";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT USAGE ON SEQUENCES TO :"api";
SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I', oid::regclass, :'api')
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relowner = (SELECT oid FROM pg_roles WHERE rolname = :'owner')
\gexec
SELECT format('GRANT USAGE ON SEQUENCE %s TO %I', oid::regclass, :'api')
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S' AND relowner = (SELECT oid FROM pg_roles WHERE rolname = :'owner')
\gexec
SELECT format('REVOKE %I FROM CURRENT_USER', :'owner')
WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
	AND EXISTS (
		SELECT FROM pg_auth_members AS m JOIN pg_roles AS o ON o.oid = m.roleid
			JOIN pg_roles AS me ON me.oid = m.member AND me.oid = m.grantor
		WHERE o.rolname = :'owner' AND me.rolname = current_user)
\gexec

COMMIT;
