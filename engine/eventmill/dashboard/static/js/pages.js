// The pages, in the order of the navigation.

export const PAGES = [
  { name: "overview", title: "Overview", group: "Watch", icon: "M3 10h4V3H3zM3 17h4v-4H3zM10 17h7v-7h-7zM10 7h7V3h-7z", load: () => import("./pages/overview.js") },
  { name: "pipeline", title: "Pipeline", group: "Watch", icon: "M3 5h4v4H3zM13 11h4v4h-4zM7 7h4a2 2 0 0 1 2 2v2", load: () => import("./pages/pipeline.js") },
  { name: "explore", title: "Explore", group: "Ask", icon: "M3 3v14h14M6 13l3.5-4 3 2.5L17 6", load: () => import("./pages/explore.js") },
  { name: "sql", title: "SQL", group: "Ask", icon: "M4 5l5 5-5 5M10 15h6", load: () => import("./pages/sql.js") },
];
