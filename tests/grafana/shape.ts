// What duet's dashboard may be: Grafana's own types, with those of each panel's options and fields chosen by its type.
//
// Types alone: nothing here runs, and dashboard.test.mjs puts the dashboard to them. They do not know what a unit is called.

import type { AnnotationQuery, Dashboard, DataSourceRef, FieldConfig, FieldConfigSource, GraphFieldConfig, Panel, RowPanel } from "@grafana/schema";
import type { Options as StatOptions } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { Options as TimeSeriesOptions } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** Values as JSON has them, where TypeScript wants the member of an enum. */
type Plain<T> = T extends string ? `${T}` : T extends object ? { [Key in keyof T]: Plain<T[Key]> } : T;

/** What we use of a query of Grafana's Prometheus data source, whose types are in a package that wants all of its front end. */
interface Query {
  refId: string;
  datasource?: DataSourceRef;
  expr: string;
  legendFormat?: string;
  range?: boolean;
}

/** The same of its annotations: its own words beside those of every annotation. */
interface Annotation extends AnnotationQuery<Query> {
  titleFormat?: string;
  useValueForTime?: boolean;
}

/** Grafana fills in the options that are left out. */
interface PanelOf<Type extends string, Options, Custom> extends Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> {
  type: Type;
  options: Partial<Options>;
  fieldConfig: Omit<FieldConfigSource, "defaults"> & { defaults: Omit<FieldConfig, "custom"> & { custom?: Custom } };
  targets: Query[];
}

type Panels = PanelOf<"stat", StatOptions, never> | PanelOf<"timeseries", TimeSeriesOptions, GraphFieldConfig> | RowPanel;

export type DuetDashboard = Plain<Omit<Dashboard, "panels" | "annotations"> & { panels: Panels[]; annotations: { list: Annotation[] } }>;
