//! The queries of the Grafana dashboard return rows: its macros and variables are replaced as Grafana's manual describes.

use serde_json::Value;

use crate::content::samples;
use crate::server::shared;
use crate::setup::Setup;

/// Replaces what Grafana replaces in a query.
fn expanded(sql: &str) -> String {
    let group = "floor(extract(epoch from time)/60)*60 AS \"time\"";
    let sql = sql.replace("$__timeGroupAlias(time, $__interval)", group);
    let sql =
        sql.replace("$__timeFilter(time)", "time BETWEEN '2024-12-01T00:00:00Z' AND '2024-12-02T00:00:00Z'");
    let sql =
        sql.replace("'$quantity'", "'temperature'").replace("$device", "'emu00','emu01','emu02','emu11'");
    assert!(!sql.contains('$'), "a macro that is not known here: {sql}");
    sql
}

/// Collects the texts under a key, in any depth.
fn texts_of<'a>(key: &str, value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == key => found.push(text),
                    _ => texts_of(key, member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts_of(key, item, found)),
        _ => {}
    }
}

#[test]
fn the_queries_of_the_dashboard_return_rows() {
    let Some(server) = shared("the dashboard's queries") else { return };
    let database = server.database();
    let setup = Setup::new("", &server.url(&database), "");
    let receiver = setup.start();
    samples().iter().for_each(|(_, body)| receiver.accept(body));
    receiver.drain();
    receiver.stop();
    let dashboard: Value =
        serde_json::from_str(include_str!("../../deploy/grafana/sensors.json")).expect("JSON");
    let mut queries = Vec::new();
    texts_of("rawSql", &dashboard, &mut queries);
    texts_of("query", &dashboard["templating"], &mut queries);
    queries.retain(|query| query.starts_with("SELECT "));
    assert_eq!(queries.len(), 6);
    for query in queries {
        assert!(!server.rows(&database, &expanded(query)).is_empty(), "{query}");
    }
    // Those of the page as well; they may find nothing.
    let page = include_str!("../../docs/postgres.md");
    let blocks = page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    let queries: Vec<&str> = blocks.filter(|block| block.starts_with("SELECT ")).collect();
    assert_eq!(queries.len(), 4);
    for query in queries.iter().filter(|query| !query.contains("create_hypertable")) {
        server.psql(&database, query);
    }
}
