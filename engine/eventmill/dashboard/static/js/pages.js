// The pages, in the order of the navigation.

export const PAGES = [
  { name: "overview", title: "Overview", group: "Watch", icon: "M3 10h4V3H3zM3 17h4v-4H3zM10 17h7v-7h-7zM10 7h7V3h-7z", load: () => import("./pages/overview.js") },
  { name: "live", title: "Live tail", group: "Watch", icon: "M10 10h.01M6.5 13.5a5 5 0 0 1 0-7M13.5 6.5a5 5 0 0 1 0 7M4 16a8.5 8.5 0 0 1 0-12M16 4a8.5 8.5 0 0 1 0 12", load: () => import("./pages/live.js") },
  { name: "pipeline", title: "Pipeline", group: "Watch", icon: "M3 5h4v4H3zM13 11h4v4h-4zM7 7h4a2 2 0 0 1 2 2v2", load: () => import("./pages/pipeline.js") },
  { name: "explore", title: "Explore", group: "Ask", icon: "M3 3v14h14M6 13l3.5-4 3 2.5L17 6", load: () => import("./pages/explore.js") },
  { name: "funnels", title: "Funnels", group: "Ask", icon: "M3 4h14l-5 6v6l-4-2v-4z", load: () => import("./pages/funnels.js") },
  { name: "retention", title: "Retention", group: "Ask", icon: "M3 3h14v14H3zM3 8h14M8 3v14M8 13h5M13 8v5", load: () => import("./pages/retention.js") },
  { name: "paths", title: "Paths", group: "Ask", icon: "M3 10h4c4 0 3-6 7-6h3M7 10h10M7 10c4 0 3 6 7 6h3", load: () => import("./pages/paths.js") },
  { name: "sessions", title: "Sessions", group: "Ask", icon: "M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM10 6v4l3 2", load: () => import("./pages/sessions.js") },
  { name: "users", title: "User timeline", group: "Ask", icon: "M10 3a3.2 3.2 0 1 0 0 6.4A3.2 3.2 0 0 0 10 3zM4 17c0-3.5 2.5-5.2 6-5.2s6 1.7 6 5.2", load: () => import("./pages/users.js") },
  { name: "saved", title: "Saved", group: "Ask", icon: "M5 3h10v14l-5-4-5 4z", load: () => import("./pages/saved.js") },
  { name: "sql", title: "SQL", group: "Ask", icon: "M4 5l5 5-5 5M10 15h6", load: () => import("./pages/sql.js") },
];
